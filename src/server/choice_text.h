// ChoiceText: the text of one sequence as it streams: token ids become characters, reasoning, answer and tool calls;
// stop strings end it; logprobs travel with the text they belong to. One a choice, on its connection's thread. Not its
// job: JSON, the engine.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/common.h"
#include "engine/request.h"
#include "text/output_parser.h"
#include "text/tokenizer.h"

namespace spillway::server {

struct ChoiceTextOptions {
  bool parse = true;  // split reasoning, answer and tool calls (chat); otherwise all is content, as generated
  text::OutputParserOptions parser;
  std::vector<std::string> stops;    // looked for in the answer, not in the reasoning
  std::vector<int32_t> stop_tokens;  // the last of them ends the sequence and is not text
  int tool_calls_max = 0;            // a call beyond it ends the sequence and is not told; 0: any number
  bool logprobs = false;
  bool end_token_logprob = false;   // logprobs tell of the stop token as well, though it is not text
  bool skip_special_tokens = true;  // off when the markers the parser looks for are special tokens
};

// A piece of output with the logprobs of its tokens, if they were asked for. One kind a piece; the text may be empty
// when there are only logprobs left to tell.
struct TextPiece {
  text::OutputDelta delta;
  std::vector<api::TokenLogprobs> logprobs;
};

class ChoiceText {
 public:
  // The tokenizer outlives the text.
  ChoiceText(const text::Tokenizer& tokenizer, ChoiceTextOptions options);

  // Takes the event's tokens; at its finish, flushes. Nothing more comes out once stopped().
  std::vector<TextPiece> push(const engine::Event& event);

  // A stop string was found, or a tool call too many: the sequence should be cancelled, its remaining tokens are
  // ignored.
  bool stopped() const { return stopped_; }
  const std::string& stop_sequence() const { return stop_sequence_; }
  int reasoning_tokens() const { return reasoning_tokens_; }
  int tool_calls() const { return parser_ ? parser_->tool_calls() : 0; }

 private:
  void push_token(const engine::TokenEvent& token, std::vector<TextPiece>& out);
  void push_text(const std::string& text, std::vector<TextPiece>& out);
  void emit(text::OutputDelta delta, std::vector<TextPiece>& out);
  void emit_content(std::string text, std::vector<TextPiece>& out);
  void flush(std::vector<TextPiece>& out);

  const text::Tokenizer& tokenizer_;
  ChoiceTextOptions options_;
  text::Detokenizer detokenizer_;
  std::unique_ptr<text::OutputParser> parser_;
  text::StopMatcher matcher_;
  std::vector<api::TokenLogprobs> reasoning_logprobs_;  // of tokens whose text has not come out yet
  std::vector<api::TokenLogprobs> content_logprobs_;
  bool stopped_ = false;
  std::string stop_sequence_;
  int reasoning_tokens_ = 0;
};

// A token's bytes and logprobs as the APIs report them.
api::TokenLogprobs token_logprobs(const text::Tokenizer& tokenizer, const engine::TokenEvent& token);

}  // namespace spillway::server
