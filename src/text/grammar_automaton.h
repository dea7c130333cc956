// GrammarAutomaton: a grammar over bytes as a pushdown automaton whose reachable states are made as they are met: a
// state is a set of stacks, stacks share their tails, equal states have one number, a step is a table look-up after the
// first time. One owner (CompiledGrammar, which locks it).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/grammar_rules.h"

namespace spillway::text {

// The rules laid out for the automaton. Immutable; any thread.
class GrammarProgram {
 public:
  // An error when no finite text satisfies the root.
  static Result<std::shared_ptr<const GrammarProgram>> compile(const GrammarRules& rules, Element root);

 private:
  friend class GrammarAutomaton;
  static constexpr int32_t kEnd = INT32_MIN;
  struct Alternative {
    int32_t begin;   // index of code_
    int32_t height;  // the least stack it needs to come to its end
  };

  Status measure(const GrammarRules& rules);

  std::vector<int32_t> code_;  // alternatives, each closed by kEnd; as Element::code
  std::vector<std::vector<Alternative>> rules_;
  std::vector<ByteSet> classes_;
  int32_t root_ = 0;
};

class GrammarAutomaton {
 public:
  static constexpr int32_t kDead = -1;

  explicit GrammarAutomaton(std::shared_ptr<const GrammarProgram> program);

  int32_t start() const { return start_; }
  int32_t step(int32_t state, uint8_t byte) {
    int32_t& next = rows_[size_t(state)][byte];
    if (next == kUnknown) return make_step(state, byte);
    return next;
  }
  bool accepts(int32_t state) const { return states_[size_t(state)].accepts; }
  bool full() const { return states_.size() > kStatesMax; }

  // The state of another automaton of the same program.
  int32_t import_state(const GrammarAutomaton& other, int32_t state);

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr int32_t kBottom = -1;
  static constexpr size_t kStatesMax = 16'000;
  static constexpr int32_t kStackMax = 96;
  // Bounds on one state. What lies beyond is left out: the language becomes narrower, never empty, since every stack
  // that is kept can come to its end. Only schemas that are ambiguous without need get there.
  static constexpr size_t kStacksMax = 1024;
  static constexpr size_t kClosureMax = 16'384;
  static constexpr int kClosureDepthMax = 2500;

  struct Node {
    int32_t at;      // index of the program's code
    int32_t parent;  // node below, or kBottom
    int32_t depth;
  };
  struct State {
    std::vector<int32_t> nodes;  // sorted; each stands before a class of bytes
    bool accepts = false;
  };

  int32_t make_step(int32_t state, uint8_t byte);
  int32_t node(int32_t at, int32_t parent);
  int32_t depth(int32_t node) const { return node == kBottom ? 0 : nodes_[size_t(node)].depth; }
  void close(int32_t at, int32_t parent, State& out, int nesting = 0);
  int32_t intern(State state);

  std::shared_ptr<const GrammarProgram> program_;
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, int32_t> node_index_;
  std::vector<State> states_;
  std::vector<std::array<int32_t, 256>> rows_;
  std::unordered_multimap<uint64_t, int32_t> state_index_;  // by hash
  std::unordered_set<uint64_t> visited_;                    // (at, parent) of the closure in progress
  int32_t start_ = 0;
};

}  // namespace spillway::text
