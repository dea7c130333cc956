#include "text/grammar_automaton.h"

#include <algorithm>

namespace spillway::text {

namespace {

constexpr int32_t kEndless = 1 << 20;

uint64_t pair_key(int32_t a, int32_t b) { return uint64_t(uint32_t(a)) << 32 | uint32_t(b); }

// The least stack a sequence needs; kEndless while one of its rules has no end yet.
int32_t height_of(const Sequence& sequence, const std::vector<int32_t>& heights) {
  int32_t height = 0;
  for (size_t i = 0; i < sequence.size(); ++i) {
    if (!sequence[i].is_rule()) continue;
    const int32_t frame = i + 1 < sequence.size() ? 1 : 0;
    height = std::max(height, std::min(kEndless, heights[size_t(sequence[i].code)] + frame));
  }
  return height;
}

}  // namespace

Result<std::shared_ptr<const GrammarProgram>> GrammarProgram::compile(const GrammarRules& rules, Element root) {
  auto program = std::make_shared<GrammarProgram>();
  program->classes_ = rules.classes();
  program->root_ = root.code;
  SW_TRY(program->measure(rules));
  return std::shared_ptr<const GrammarProgram>(std::move(program));
}

Status GrammarProgram::measure(const GrammarRules& rules) {
  std::vector<int32_t> heights(rules.rules().size(), kEndless);
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t rule = heights.size(); rule-- > 0;) {
      for (const Sequence& sequence : rules.rules()[rule]) {
        const int32_t height = height_of(sequence, heights);
        if (height < heights[rule]) heights[rule] = height, changed = true;
      }
    }
  }
  if (heights[size_t(root_)] >= kEndless)
    return invalid("expected a schema that some text satisfies, found one without end");
  for (const auto& alternatives : rules.rules()) {
    rules_.emplace_back();
    for (const Sequence& sequence : alternatives) {
      rules_.back().push_back({int32_t(code_.size()), height_of(sequence, heights)});
      for (const Element element : sequence) code_.push_back(element.code);
      code_.push_back(kEnd);
    }
  }
  return {};
}

GrammarAutomaton::GrammarAutomaton(std::shared_ptr<const GrammarProgram> program) : program_(std::move(program)) {
  State state;
  visited_.clear();
  for (const auto& alternative : program_->rules_[size_t(program_->root_)]) close(alternative.begin, kBottom, state);
  start_ = intern(std::move(state));
}

int32_t GrammarAutomaton::node(int32_t at, int32_t parent) {
  const auto [found, added] = node_index_.try_emplace(pair_key(at, parent), int32_t(nodes_.size()));
  if (added) nodes_.push_back({at, parent, depth(parent) + 1});
  return found->second;
}

// Adds the byte classes that may come next when the stack is `at` over `parent`.
void GrammarAutomaton::close(int32_t at, int32_t parent, State& out, int nesting) {
  if (out.nodes.size() >= kStacksMax) return;
  if ((nesting > kClosureDepthMax || visited_.size() > kClosureMax) && (out.accepts || !out.nodes.empty())) return;
  const auto& code = program_->code_;
  while (code[size_t(at)] == GrammarProgram::kEnd) {
    if (parent == kBottom) {
      out.accepts = true;
      return;
    }
    at = nodes_[size_t(parent)].at;
    parent = nodes_[size_t(parent)].parent;
  }
  const uint64_t key = pair_key(at, parent);
  if (!visited_.insert(key).second) return;
  const int32_t element = code[size_t(at)];
  if (element < 0) {
    out.nodes.push_back(node(at, parent));
    return;
  }
  const bool last = code[size_t(at) + 1] == GrammarProgram::kEnd;
  const int32_t below = last ? parent : node(at + 1, parent);
  for (const auto& alternative : program_->rules_[size_t(element)]) {
    if (depth(below) + alternative.height <= kStackMax) close(alternative.begin, below, out, nesting + 1);
  }
}

int32_t GrammarAutomaton::intern(State state) {
  std::sort(state.nodes.begin(), state.nodes.end());
  state.nodes.erase(std::unique(state.nodes.begin(), state.nodes.end()), state.nodes.end());
  if (state.nodes.empty() && !state.accepts) return kDead;
  uint64_t hash = state.accepts;
  for (const int32_t node : state.nodes) hash = (hash ^ uint64_t(node)) * 0x9E3779B97F4A7C15ull + 1;
  for (auto [it, end] = state_index_.equal_range(hash); it != end; ++it) {
    const State& other = states_[size_t(it->second)];
    if (other.accepts == state.accepts && other.nodes == state.nodes) return it->second;
  }
  const auto id = int32_t(states_.size());
  states_.push_back(std::move(state));
  rows_.emplace_back().fill(kUnknown);
  state_index_.emplace(hash, id);
  return id;
}

int32_t GrammarAutomaton::make_step(int32_t state, uint8_t byte) {
  State next;
  visited_.clear();
  const std::vector<int32_t> nodes = states_[size_t(state)].nodes;
  for (const int32_t id : nodes) {
    const Node top = nodes_[size_t(id)];
    const size_t byte_class = size_t(-(program_->code_[size_t(top.at)] + 1));
    if (program_->classes_[byte_class].test(byte)) close(top.at + 1, top.parent, next);
  }
  const int32_t id = intern(std::move(next));
  rows_[size_t(state)][byte] = id;
  return id;
}

int32_t GrammarAutomaton::import_state(const GrammarAutomaton& other, int32_t state) {
  const auto copy = [&](auto& self, int32_t id) -> int32_t {
    if (id == kBottom) return kBottom;
    const Node& from = other.nodes_[size_t(id)];
    return node(from.at, self(self, from.parent));
  };
  State out;
  out.accepts = other.states_[size_t(state)].accepts;
  for (const int32_t id : other.states_[size_t(state)].nodes) out.nodes.push_back(copy(copy, id));
  return intern(std::move(out));
}

}  // namespace spillway::text
