// OutputConstraint: a text::GrammarState as the engine's TokenConstraint. Owned by its sequence, called on the engine's
// thread.
#pragma once

#include <memory>
#include <utility>

#include "engine/constraint.h"
#include "text/grammar.h"

namespace spillway::server {

class OutputConstraint final : public engine::TokenConstraint {
 public:
  explicit OutputConstraint(std::unique_ptr<text::GrammarState> state) : state_(std::move(state)) {}

  void allowed(std::span<uint64_t> words) override { state_->allowed(words); }
  void accept(int32_t token) override { state_->accept(token); }
  std::unique_ptr<engine::TokenConstraint> clone() const override {
    return std::make_unique<OutputConstraint>(state_->clone());
  }

 private:
  std::unique_ptr<text::GrammarState> state_;
};

}  // namespace spillway::server
