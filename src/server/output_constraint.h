// OutputConstraint: a text::GrammarState as the engine's TokenConstraint. When the prompt ends inside <think>, the
// reasoning is free (only the end of the sequence is masked) and the grammar begins after </think>. Owned by its
// sequence, called on the engine's thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "server/served_model.h"
#include "text/grammar.h"

namespace spillway::server {

class OutputConstraint final : public engine::TokenConstraint {
 public:
  // model outlives the constraint.
  OutputConstraint(const ServedModel& model, std::unique_ptr<text::GrammarState> grammar, bool in_reasoning,
                   std::vector<int32_t> stop_tokens);

  void allowed(std::span<uint64_t> words) override;
  void accept(int32_t token) override;
  std::unique_ptr<engine::TokenConstraint> clone() const override;

 private:
  const ServedModel& model_;
  std::unique_ptr<text::GrammarState> grammar_;
  bool in_reasoning_;
  std::vector<int32_t> stop_tokens_;
  std::string tail_;  // the last bytes of the reasoning, where </think> may be in pieces
};

}  // namespace spillway::server
