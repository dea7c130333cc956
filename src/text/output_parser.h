// OutputParser: splits a generation into reasoning, answer and tool calls while it streams. One a sequence; not
// thread-safe. Concatenated deltas equal what one push of the whole text gives.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::text {

enum class ToolStyle { kNone, kDeepseek, kHermes, kLlama };

struct OutputParserOptions {
  bool reasoning = true;             // look for <think> ... </think>
  bool starts_in_reasoning = false;  // the prompt ended inside <think>
  ToolStyle tools = ToolStyle::kNone;
};

struct OutputDelta {
  enum class Kind { kReasoning, kContent, kToolCall } kind = Kind::kContent;
  std::string text;  // reasoning or content; for a tool call: a fragment of its JSON arguments
  int tool_index = 0;
  std::string tool_name;  // set on a tool call's first delta alone
};

class OutputParser {
 public:
  static std::unique_ptr<OutputParser> make(const OutputParserOptions& options);
  virtual ~OutputParser() = default;
  virtual std::vector<OutputDelta> push(std::string_view text) = 0;
  virtual std::vector<OutputDelta> finish() = 0;  // what was held back; unparsable tool text comes out as content
  virtual bool in_reasoning() const = 0;
  virtual int tool_calls() const = 0;
};

// The style a chat template speaks, found from the markers in its source.
ToolStyle detect_tool_style(std::string_view chat_template);

// Finds stop strings across pushes and holds back text that may be the start of one.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  std::string push(std::string_view text);  // text that is safe to emit
  std::string finish();
  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string matched_;
  bool stopped_ = false;
};

}  // namespace spillway::text
