#include "text/output_parser.h"

#include <algorithm>
#include <utility>

#include "text/marker.h"
#include "text/tool_call_scan.h"

namespace spillway::text {

namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kEndThink = "</think>";
constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
constexpr std::string_view kHermesBegin = "<tool_call>";
constexpr std::string_view kHermesEnd = "</tool_call>";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr size_t kHeaderMax = 256;

// Each state consumes what it can of the pending text and says whether it moved on; its decisions depend on the bytes
// alone, never on how they were cut into pushes.
class Parser final : public OutputParser {
 public:
  explicit Parser(const OutputParserOptions& options) : tools_(options.tools) {
    if (!options.reasoning) {
      state_ = answer_state();
    } else {
      state_ = options.starts_in_reasoning ? State::kReasoningStart : State::kDetect;
    }
  }

  std::vector<OutputDelta> push(std::string_view text) override {
    pending_.erase(0, std::exchange(at_, 0));
    pending_ += text;
    run();
    return std::exchange(deltas_, {});
  }

  std::vector<OutputDelta> finish() override {
    at_end_ = true;
    run();
    emit_raw();
    return std::exchange(deltas_, {});
  }

  bool in_reasoning() const override { return state_ == State::kReasoning || state_ == State::kReasoningStart; }
  int tool_calls() const override { return calls_; }

 private:
  enum class State {
    kDetect,
    kReasoningStart,
    kReasoning,
    kAfterThink,
    kContent,
    kPlain,
    kAfterCall,
    kDeepseekNext,
    kDeepseekHeader,
    kDeepseekName,
    kDeepseekFence,
    kDeepseekArguments,
    kHermesObject,
    kHermesClose,
    kLlamaStart,
    kLlamaObject,
    kLlamaNext,
  };

  State answer_state() const {
    return tools_ == ToolStyle::kNone    ? State::kPlain
           : tools_ == ToolStyle::kLlama ? State::kLlamaStart
                                         : State::kContent;
  }

  std::string_view rest() const { return std::string_view(pending_).substr(at_); }

  void run() {
    while (step()) {
    }
  }

  bool step() {
    switch (state_) {
      case State::kDetect:
      case State::kReasoningStart:
        return detect();
      case State::kReasoning:
        return reasoning();
      case State::kAfterThink:
        return after_think();
      case State::kContent:
        return content();
      case State::kPlain:
        return plain();
      case State::kAfterCall:
        return after_call();
      case State::kDeepseekNext:
        return deepseek_next();
      case State::kDeepseekHeader:
        return deepseek_header();
      case State::kDeepseekName:
        return deepseek_name();
      case State::kDeepseekFence:
        return deepseek_fence();
      case State::kDeepseekArguments:
        return deepseek_arguments();
      case State::kHermesObject:
      case State::kLlamaObject:
        return object();
      case State::kHermesClose:
        return hermes_close();
      case State::kLlamaStart:
        return llama_start();
      case State::kLlamaNext:
        return llama_next();
    }
    return false;
  }

  bool go(State state) {
    state_ = state;
    return true;
  }

  void emit(OutputDelta::Kind kind, std::string_view text) {
    if (text.empty()) return;
    const int index = kind == OutputDelta::Kind::kToolCall ? calls_ - 1 : 0;
    if (deltas_.empty() || deltas_.back().kind != kind || deltas_.back().tool_index != index) {
      deltas_.push_back({kind, "", index, ""});
    }
    deltas_.back().text += text;
  }

  void begin_call(std::string name) {
    raw_.clear();
    deltas_.push_back({OutputDelta::Kind::kToolCall, "", calls_++, std::move(name)});
  }

  // Text that was taken for a tool call and is none.
  void emit_raw() { emit(OutputDelta::Kind::kContent, std::exchange(raw_, {})); }

  bool not_a_call() {
    emit_raw();
    return go(tools_ == ToolStyle::kLlama ? State::kPlain : State::kContent);
  }

  void take_raw(size_t count) {
    raw_ += rest().substr(0, count);
    at_ += count;
  }

  bool detect() {
    const size_t white = leading_white(rest());
    const std::string_view text = rest().substr(white);
    const bool forced = state_ == State::kReasoningStart;
    if (text.starts_with(kThink)) {
      at_ += white + kThink.size();
      skip_lines_ = true;
      return go(State::kReasoning);
    }
    if (!at_end_ && kThink.starts_with(text)) return false;
    if (!forced) return go(answer_state());
    skip_lines_ = true;
    return go(State::kReasoning);
  }

  bool reasoning() {
    if (skip_lines_) {
      while (!rest().empty() && (rest()[0] == '\n' || rest()[0] == '\r')) ++at_;
      if (rest().empty()) return false;
      skip_lines_ = false;
    }
    const size_t end = rest().find(kEndThink);
    if (end != std::string_view::npos) {
      emit(OutputDelta::Kind::kReasoning, rest().substr(0, end));
      at_ += end + kEndThink.size();
      return go(State::kAfterThink);
    }
    const size_t held = at_end_ ? 0 : partial_suffix(rest(), {kEndThink});
    emit(OutputDelta::Kind::kReasoning, rest().substr(0, rest().size() - held));
    at_ = pending_.size() - held;
    return false;
  }

  // Blank lines between the thought and the answer belong to neither.
  bool after_think() {
    const size_t white = leading_white(rest());
    if (white == rest().size()) {
      if (at_end_) at_ = pending_.size();
      return false;
    }
    const size_t newline = rest().substr(0, white).rfind('\n');
    if (newline != std::string_view::npos) at_ += newline + 1;
    return go(answer_state());
  }

  bool plain() {
    emit(OutputDelta::Kind::kContent, rest());
    at_ = pending_.size();
    return false;
  }

  bool content() {
    const bool deepseek = tools_ == ToolStyle::kDeepseek;
    const std::string_view first = deepseek ? kCallsBegin : kHermesBegin;
    const std::string_view second = deepseek ? kCallBegin : kHermesBegin;
    const size_t found = std::min(rest().find(first), rest().find(second));
    if (found != std::string_view::npos) {
      const size_t kept = found - trailing_white(rest().substr(0, found));
      emit(OutputDelta::Kind::kContent, rest().substr(0, kept));
      at_ += kept;
      const bool wraps = rest().substr(found - kept).starts_with(first) && deepseek;
      take_raw(found - kept + (wraps ? first.size() : deepseek ? 0 : first.size()));
      scan_ = ToolCallScan();
      return go(deepseek ? State::kDeepseekNext : State::kHermesObject);
    }
    size_t held = 0;
    if (!at_end_) {
      held = partial_suffix(rest(), {first, second});
      held += trailing_white(rest().substr(0, rest().size() - held));
    }
    emit(OutputDelta::Kind::kContent, rest().substr(0, rest().size() - held));
    at_ = pending_.size() - held;
    return false;
  }

  bool after_call() {
    at_ += leading_white(rest());
    return !rest().empty() && go(State::kContent);
  }

  // Between calls: another one, the end of all, or text that is none of it.
  bool deepseek_next() {
    const size_t white = leading_white(rest());
    const std::string_view text = rest().substr(white);
    if (text.starts_with(kCallBegin)) {
      take_raw(white + kCallBegin.size());
      return go(State::kDeepseekHeader);
    }
    if (text.starts_with(kCallsEnd) && calls_ > 0) {
      raw_.clear();
      at_ += white + kCallsEnd.size();
      return go(State::kAfterCall);
    }
    if (!at_end_ && (kCallBegin.starts_with(text) || (calls_ > 0 && kCallsEnd.starts_with(text)))) return false;
    if (at_end_ && text.empty() && raw_.empty()) {
      at_ = pending_.size();
      return false;
    }
    return not_a_call();
  }

  bool deepseek_header() {
    const size_t end = rest().find('<');
    const std::string_view tail = end == std::string_view::npos ? std::string_view() : rest().substr(end);
    if (!tail.empty() && tail.starts_with(kSeparator) && end <= kHeaderMax) {
      header_ = trimmed(rest().substr(0, end));
      take_raw(end + kSeparator.size());
      return go(State::kDeepseekName);
    }
    const bool hopeful =
        rest().size() <= kHeaderMax + kSeparator.size() && (tail.empty() || kSeparator.starts_with(tail));
    return (at_end_ || !hopeful) && not_a_call();
  }

  // "function<sep>name\n" of V3 and R1, or "name<sep>" of V3.1.
  bool deepseek_name() {
    const size_t white = leading_white(rest());
    if (header_ != "function" || (white < rest().size() && rest()[white] == '{')) {
      name_ = header_;
    } else {
      const size_t end = rest().find('\n', white);
      if (end == std::string_view::npos) return (at_end_ || rest().size() > kHeaderMax) && not_a_call();
      name_ = trimmed(rest().substr(0, end));
      take_raw(end);
    }
    const bool fits =
        !name_.empty() && name_.size() <= kHeaderMax && name_.find_first_of("<>{}` \n\t") == std::string::npos;
    return fits ? go(State::kDeepseekFence) : not_a_call();
  }

  bool deepseek_fence() {
    constexpr std::string_view kFence = "```";
    const size_t white = leading_white(rest());
    const std::string_view text = rest().substr(white);
    fenced_ = text.starts_with(kFence);
    if (!fenced_ && kFence.starts_with(text)) return at_end_ && not_a_call();
    size_t skip = white;
    if (fenced_) {
      const size_t line = text.find('\n');
      if (line == std::string_view::npos) return (at_end_ || text.size() > kHeaderMax) && not_a_call();
      skip += line + 1;
    }
    at_ += skip;
    begin_call(name_);
    return go(State::kDeepseekArguments);
  }

  // The white space and the fence that may close the arguments at the end of text.
  size_t closing_suffix(std::string_view text) const {
    size_t size = text.size() - trailing_white(text);
    for (int i = 0; fenced_ && i < 3 && size > 0 && text[size - 1] == '`'; ++i) --size;
    return text.size() - (size - trailing_white(text.substr(0, size)));
  }

  bool deepseek_arguments() {
    const size_t end = std::min(rest().find(kCallEnd), rest().find(kCallsEnd));
    const bool found = end != std::string_view::npos;
    const size_t partial = found || at_end_ ? 0 : partial_suffix(rest(), {kCallEnd, kCallsEnd});
    const std::string_view body = rest().substr(0, found ? end : rest().size() - partial);
    const size_t kept = body.size() - closing_suffix(body);
    emit(OutputDelta::Kind::kToolCall, body.substr(0, kept));
    if (!found) {
      at_ = at_end_ ? pending_.size() : at_ + kept;
      return false;
    }
    at_ += end;
    if (rest().starts_with(kCallEnd)) at_ += kCallEnd.size();
    return go(State::kDeepseekNext);
  }

  // A JSON call of Hermes or Llama.
  bool object() {
    while (!rest().empty()) {
      const char c = rest()[0];
      const bool was_named = scan_.named();
      const ToolCallScan::Step step = scan_.feed(c);
      if (step == ToolCallScan::Step::kBad && scan_.named() == was_named) return not_a_call();
      ++at_;
      if (!was_named) raw_ += c;
      if (scan_.named()) {
        if (!was_named) begin_call(scan_.name());
        emit(OutputDelta::Kind::kToolCall, scan_.take_arguments());
      }
      if (step == ToolCallScan::Step::kDone) {
        return go(state_ == State::kHermesObject ? State::kHermesClose : State::kLlamaNext);
      }
    }
    return false;
  }

  bool hermes_close() {
    const size_t white = leading_white(rest());
    const std::string_view text = rest().substr(white);
    if (text.starts_with(kHermesEnd)) {
      at_ += white + kHermesEnd.size();
      return go(State::kAfterCall);
    }
    if (text.empty() && at_end_) at_ = pending_.size();
    if (kHermesEnd.starts_with(text) && (!at_end_ || text.empty())) return false;
    return go(State::kContent);
  }

  bool llama_start() {
    const size_t white = leading_white(rest());
    std::string_view text = rest().substr(white);
    const bool tagged = text.starts_with(kPythonTag);
    const size_t skip = tagged ? white + kPythonTag.size() + leading_white(text.substr(kPythonTag.size())) : white;
    text = rest().substr(skip);
    if (text.starts_with('{')) {
      take_raw(skip);
      scan_ = ToolCallScan();
      return go(State::kLlamaObject);
    }
    if (!at_end_ && (text.empty() || (!tagged && kPythonTag.starts_with(text)))) return false;
    return go(State::kPlain);
  }

  bool llama_next() {
    const size_t white = leading_white(rest());
    std::string_view text = rest().substr(white);
    if (text.empty()) {
      if (at_end_) at_ = pending_.size();
      return false;
    }
    const bool semicolon = text[0] == ';';
    const size_t skip = semicolon ? white + 1 + leading_white(text.substr(1)) : white;
    if (skip == rest().size()) {
      if (at_end_) at_ = pending_.size();
      return false;
    }
    if (rest()[skip] != '{') return go(State::kPlain);
    take_raw(skip);
    scan_ = ToolCallScan();
    return go(State::kLlamaObject);
  }

  const ToolStyle tools_;
  State state_ = State::kPlain;
  std::string pending_;
  size_t at_ = 0;    // of pending_, what is consumed
  std::string raw_;  // consumed, not emitted: it may turn out to be no call
  bool at_end_ = false;
  bool skip_lines_ = false;
  bool fenced_ = false;
  std::string header_;
  std::string name_;
  ToolCallScan scan_;
  int calls_ = 0;
  std::vector<OutputDelta> deltas_;
};

}  // namespace

std::unique_ptr<OutputParser> OutputParser::make(const OutputParserOptions& options) {
  return std::make_unique<Parser>(options);
}

ToolStyle detect_tool_style(std::string_view source) {
  const auto has = [&](std::string_view marker) { return source.find(marker) != std::string_view::npos; };
  if (has(kCallBegin)) return ToolStyle::kDeepseek;
  if (has(kHermesBegin)) return ToolStyle::kHermes;
  const bool llama = has("<|start_header_id|>") && (has("\"parameters\"") || has(kPythonTag));
  return llama || has(kPythonTag) ? ToolStyle::kLlama : ToolStyle::kNone;
}

}  // namespace spillway::text
