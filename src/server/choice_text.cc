#include "server/choice_text.h"

#include <algorithm>
#include <utility>

namespace spillway::server {

using Kind = text::OutputDelta::Kind;

ChoiceText::ChoiceText(const text::Tokenizer& tokenizer, ChoiceTextOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      detokenizer_(tokenizer, options_.skip_special_tokens),
      parser_(options_.parse ? text::OutputParser::make(options_.parser) : nullptr),
      matcher_(options_.stops) {}

std::vector<TextPiece> ChoiceText::push(const engine::Event& event) {
  std::vector<TextPiece> out;
  if (stopped_) return out;
  const bool ended = event.finish == engine::FinishReason::kStop;
  for (size_t i = 0; i < event.tokens.size() && !stopped_; ++i) {
    const bool last = ended && i + 1 == event.tokens.size();
    if (last && std::ranges::find(options_.stop_tokens, event.tokens[i].token) != options_.stop_tokens.end()) {
      if (options_.logprobs && options_.end_token_logprob) {
        content_logprobs_.push_back(token_logprobs(tokenizer_, event.tokens[i]));
      }
      break;
    }
    push_token(event.tokens[i], out);
  }
  if (event.finish != engine::FinishReason::kNone && !stopped_) flush(out);
  return out;
}

void ChoiceText::push_token(const engine::TokenEvent& token, std::vector<TextPiece>& out) {
  const bool reasoning = parser_ && parser_->in_reasoning();
  if (reasoning) ++reasoning_tokens_;
  if (options_.logprobs) {
    (reasoning ? reasoning_logprobs_ : content_logprobs_).push_back(token_logprobs(tokenizer_, token));
  }
  push_text(detokenizer_.push(token.token), out);
}

void ChoiceText::push_text(const std::string& text, std::vector<TextPiece>& out) {
  if (text.empty()) return;
  if (!parser_) return emit_content(matcher_.push(text), out);
  for (text::OutputDelta& delta : parser_->push(text)) {
    if (stopped_) return;
    emit(std::move(delta), out);
  }
}

void ChoiceText::emit(text::OutputDelta delta, std::vector<TextPiece>& out) {
  if (delta.kind == Kind::kContent) return emit_content(matcher_.push(delta.text), out);
  if (delta.kind == Kind::kToolCall) {
    emit_content(matcher_.finish(), out);
    stopped_ |= options_.tool_calls_max > 0 && delta.tool_index >= options_.tool_calls_max;
    if (stopped_) return;
  }
  TextPiece piece{std::move(delta), {}};
  if (piece.delta.kind == Kind::kReasoning) piece.logprobs = std::exchange(reasoning_logprobs_, {});
  out.push_back(std::move(piece));
}

void ChoiceText::emit_content(std::string text, std::vector<TextPiece>& out) {
  if (matcher_.stopped()) {
    stopped_ = true;
    stop_sequence_ = matcher_.matched();
  }
  if (text.empty() && !(stopped_ && !content_logprobs_.empty())) return;
  out.push_back({{Kind::kContent, std::move(text), 0, {}}, std::exchange(content_logprobs_, {})});
}

void ChoiceText::flush(std::vector<TextPiece>& out) {
  push_text(detokenizer_.finish(), out);
  if (stopped_) return;
  if (parser_) {
    for (text::OutputDelta& delta : parser_->finish()) {
      if (!stopped_) emit(std::move(delta), out);
    }
  }
  if (stopped_) return;
  emit_content(matcher_.finish(), out);
  if (!reasoning_logprobs_.empty()) {
    out.push_back({{Kind::kReasoning, {}, 0, {}}, std::exchange(reasoning_logprobs_, {})});
  }
  if (!content_logprobs_.empty()) {
    out.push_back({{Kind::kContent, {}, 0, {}}, std::exchange(content_logprobs_, {})});
  }
}

api::TokenLogprobs token_logprobs(const text::Tokenizer& tokenizer, const engine::TokenEvent& token) {
  api::TokenLogprobs out;
  out.bytes = tokenizer.token_bytes(token.token);
  out.logprob = token.logprob;
  for (const engine::TokenLogprob& other : token.top) {
    out.top.push_back({std::string(tokenizer.token_bytes(other.token)), other.logprob});
  }
  return out;
}

}  // namespace spillway::server
