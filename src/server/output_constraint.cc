#include "server/output_constraint.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace spillway::server {
namespace {

constexpr std::string_view kThinkEnd = "</think>";

}  // namespace

OutputConstraint::OutputConstraint(const ServedModel& model, std::unique_ptr<text::GrammarState> grammar, bool in_reasoning,
                                   std::vector<int32_t> stop_tokens)
    : model_(model), grammar_(std::move(grammar)), in_reasoning_(in_reasoning), stop_tokens_(std::move(stop_tokens)) {}

void OutputConstraint::allowed(std::span<uint64_t> words) {
  if (!in_reasoning_) return grammar_->allowed(words);
  std::ranges::fill(words, 0);
  const int32_t known = std::min<int32_t>(model_.tokenizer().vocab_size(), static_cast<int32_t>(words.size() * 64));
  for (int32_t id = 0; id < known; ++id) words[id / 64] |= uint64_t{1} << (id % 64);
  for (const int32_t id : stop_tokens_) {
    if (id >= 0 && id < known) words[id / 64] &= ~(uint64_t{1} << (id % 64));
  }
}

void OutputConstraint::accept(int32_t token) {
  if (!in_reasoning_) return grammar_->accept(token);
  if (model_.think_end() == token) {
    in_reasoning_ = false;
    return;
  }
  tail_.append(model_.tokenizer().token_bytes(token));
  if (tail_.find(kThinkEnd) != std::string::npos) {
    in_reasoning_ = false;
  } else if (tail_.size() >= kThinkEnd.size()) {
    tail_.erase(0, tail_.size() - kThinkEnd.size() + 1);
  }
}

std::unique_ptr<engine::TokenConstraint> OutputConstraint::clone() const {
  auto copy = std::make_unique<OutputConstraint>(model_, grammar_->clone(), in_reasoning_, stop_tokens_);
  copy->tail_ = tail_;
  return copy;
}

}  // namespace spillway::server
