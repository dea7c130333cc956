#include "text/grammar.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "base/check.h"
#include "text/grammar_json.h"
#include "text/grammar_tools.h"
#include "text/json_schema.h"
#include "text/token_trie.h"

namespace spillway::text {

namespace {

constexpr size_t kMasksMax = 512;

// The automaton of one grammar and the masks found so far. Shared by the sequences that use the grammar.
struct Machine {
  explicit Machine(std::shared_ptr<const GrammarProgram> program) : automaton(std::move(program)) {}

  const std::vector<uint64_t>& mask(const VocabularyTrie& trie, int32_t state) {
    const auto key = std::pair(trie.serial(), state);
    if (const auto found = masks.find(key); found != masks.end()) return found->second;
    if (masks.size() >= kMasksMax) masks.clear();
    return masks[key] = trie.mask(automaton, state);
  }

  std::mutex mutex;  // of all that follows
  GrammarAutomaton automaton;
  std::map<std::pair<uint64_t, int32_t>, std::vector<uint64_t>> masks;
};

class CompiledGrammar : public Grammar {
 public:
  CompiledGrammar(GrammarRules rules, Element root, std::shared_ptr<const GrammarProgram> program)
      : rules_(std::move(rules)),
        root_(root),
        program_(std::move(program)),
        machine_(std::make_shared<Machine>(program_)) {}

  static Result<std::shared_ptr<const Grammar>> make(GrammarRules rules, Element root) {
    if (rules.too_large()) return unsupported("expected a schema of moderate size, found one with too many parts");
    SW_ASSIGN(auto program, GrammarProgram::compile(rules, root));
    return std::shared_ptr<const Grammar>(
        std::make_shared<CompiledGrammar>(std::move(rules), root, std::move(program)));
  }

  const GrammarRules& rules() const { return rules_; }
  Element root() const { return root_; }

  // The machine that new work goes to: the last one, or a fresh one when that has grown too large.
  std::shared_ptr<Machine> machine() const {
    const std::lock_guard lock(mutex_);
    bool full = false;
    {
      const std::lock_guard inner(machine_->mutex);
      full = machine_->automaton.full();
    }
    if (full) machine_ = std::make_shared<Machine>(program_);
    return machine_;
  }

  bool matches(std::string_view text) const override {
    const auto machine = this->machine();
    const std::lock_guard lock(machine->mutex);
    int32_t state = machine->automaton.start();
    for (const char byte : text) {
      if (state == GrammarAutomaton::kDead) return false;
      state = machine->automaton.step(state, uint8_t(byte));
    }
    return state != GrammarAutomaton::kDead && machine->automaton.accepts(state);
  }

 private:
  GrammarRules rules_;
  Element root_;
  std::shared_ptr<const GrammarProgram> program_;
  mutable std::mutex mutex_;  // of machine_
  mutable std::shared_ptr<Machine> machine_;
};

class MachineState : public GrammarState {
 public:
  MachineState(std::shared_ptr<const CompiledGrammar> grammar, std::shared_ptr<const VocabularyTrie> trie)
      : grammar_(std::move(grammar)), trie_(std::move(trie)), machine_(grammar_->machine()) {
    const std::lock_guard lock(machine_->mutex);
    state_ = machine_->automaton.start();
  }
  MachineState(const MachineState&) = default;

  void allowed(std::span<uint64_t> words) override {
    move_when_full();
    const std::lock_guard lock(machine_->mutex);
    const std::vector<uint64_t>& mask = machine_->mask(*trie_, state_);
    const size_t count = std::min(words.size(), mask.size());
    std::copy_n(mask.begin(), count, words.begin());
    std::fill(words.begin() + long(count), words.end(), 0);
  }

  void accept(int32_t token) override {
    if (trie_->is_end(token)) return;
    const std::lock_guard lock(machine_->mutex);
    state_ = trie_->step(machine_->automaton, state_, token);
  }

  bool complete() const override {
    const std::lock_guard lock(machine_->mutex);
    return state_ == GrammarAutomaton::kDead || machine_->automaton.accepts(state_);
  }

  std::unique_ptr<GrammarState> clone() const override { return std::make_unique<MachineState>(*this); }

 private:
  void move_when_full() {
    const auto next = grammar_->machine();
    if (next == machine_ || state_ == GrammarAutomaton::kDead) return;
    const std::scoped_lock lock(machine_->mutex, next->mutex);
    state_ = next->automaton.import_state(machine_->automaton, state_);
    machine_ = next;
  }

  std::shared_ptr<const CompiledGrammar> grammar_;
  std::shared_ptr<const VocabularyTrie> trie_;
  std::shared_ptr<Machine> machine_;
  int32_t state_ = 0;
};

std::shared_ptr<const CompiledGrammar> compiled(const std::shared_ptr<const Grammar>& grammar) {
  auto out = std::dynamic_pointer_cast<const CompiledGrammar>(grammar);
  SW_CHECK(out, "a grammar that Grammar did not make");
  return out;
}

Result<std::shared_ptr<const Grammar>> make_any(bool object) {
  GrammarRules rules;
  const JsonRules json(rules);
  return CompiledGrammar::make(std::move(rules), object ? json.object() : json.value());
}

}  // namespace

Result<std::shared_ptr<const Grammar>> Grammar::json_object() {
  static const auto grammar = make_any(true);
  return grammar;
}

Result<std::shared_ptr<const Grammar>> Grammar::json_value() {
  static const auto grammar = make_any(false);
  return grammar;
}

Result<std::shared_ptr<const Grammar>> Grammar::json_schema(const boost::json::value& schema) {
  GrammarRules rules;
  JsonRules json(rules);
  SW_ASSIGN(const Element root, compile_json_schema(schema, "schema", json));
  return CompiledGrammar::make(std::move(rules), root);
}

Result<std::shared_ptr<const Grammar>> Grammar::tool_calls(ToolStyle style, const boost::json::value& tools,
                                                           const ToolOptions& options) {
  GrammarRules rules;
  JsonRules json(rules);
  SW_ASSIGN(const Element root, compile_tool_calls(style, tools, options, json));
  return CompiledGrammar::make(std::move(rules), root);
}

std::shared_ptr<const Grammar> Grammar::after_marker(const std::shared_ptr<const Grammar>& grammar,
                                                     std::string_view marker) {
  const auto inner = compiled(grammar);
  GrammarRules rules = inner->rules();
  const Element root = free_text_until(rules, marker, inner->root());
  auto out = CompiledGrammar::make(std::move(rules), root);
  SW_CHECK(out.ok(), out.error().message);
  return std::move(out).value();
}

std::unique_ptr<GrammarState> GrammarState::start(std::shared_ptr<const Grammar> grammar,
                                                  std::shared_ptr<const TokenTrie> trie) {
  auto vocabulary = std::dynamic_pointer_cast<const VocabularyTrie>(trie);
  SW_CHECK(vocabulary, "a trie that TokenTrie did not build");
  return std::make_unique<MachineState>(compiled(grammar), std::move(vocabulary));
}

}  // namespace spillway::text
