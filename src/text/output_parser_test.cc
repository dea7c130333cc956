#include "text/output_parser.h"

#include <gmock/gmock.h>

#include <random>

namespace spillway::text {
namespace {

struct Parsed {
  std::string reasoning;
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Parsed&) const = default;
};

void PrintTo(const Parsed& parsed, std::ostream* out) {
  *out << "reasoning [" << parsed.reasoning << "] content [" << parsed.content << "]";
  for (const auto& [name, arguments] : parsed.calls) *out << " call " << name << " [" << arguments << "]";
}

void add(Parsed& parsed, const std::vector<OutputDelta>& deltas) {
  for (const OutputDelta& delta : deltas) {
    switch (delta.kind) {
      case OutputDelta::Kind::kReasoning:
        parsed.reasoning += delta.text;
        break;
      case OutputDelta::Kind::kContent:
        parsed.content += delta.text;
        break;
      case OutputDelta::Kind::kToolCall:
        if (!delta.tool_name.empty()) {
          EXPECT_EQ(size_t(delta.tool_index), parsed.calls.size());
          parsed.calls.emplace_back(delta.tool_name, "");
        }
        ASSERT_EQ(size_t(delta.tool_index) + 1, parsed.calls.size());
        parsed.calls.back().second += delta.text;
    }
  }
}

Parsed parse(const OutputParserOptions& options, const std::vector<std::string_view>& pieces) {
  const auto parser = OutputParser::make(options);
  Parsed parsed;
  for (std::string_view piece : pieces) add(parsed, parser->push(piece));
  add(parsed, parser->finish());
  EXPECT_EQ(size_t(parser->tool_calls()), parsed.calls.size());
  return parsed;
}

// The result of the whole text, after checking that every cut in two, byte by byte and random cuts give the same.
Parsed parse_all_ways(const OutputParserOptions& options, std::string_view text) {
  const Parsed whole = parse(options, {text});
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(parse(options, {text.substr(0, cut), text.substr(cut)}), whole) << "cut at " << cut << " of: " << text;
  }
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
  EXPECT_EQ(parse(options, bytes), whole) << "byte by byte: " << text;
  std::mt19937 random(uint32_t(text.size()));
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string_view> pieces;
    for (size_t at = 0; at < text.size(); at += pieces.back().size())
      pieces.push_back(text.substr(at, 1 + random() % 9));
    EXPECT_EQ(parse(options, pieces), whole) << "random cuts: " << text;
  }
  return whole;
}

constexpr OutputParserOptions kInside{true, true, ToolStyle::kNone};
constexpr OutputParserOptions kDetect{true, false, ToolStyle::kNone};
constexpr OutputParserOptions kNothing{false, false, ToolStyle::kNone};

OutputParserOptions tools(ToolStyle style, bool reasoning = false) { return {reasoning, false, style}; }

TEST(Reasoning, PromptEndedInsideTheThought) {
  EXPECT_EQ(parse_all_ways(kInside, "Let me see.\n</think>\n\nFour."), (Parsed{"Let me see.\n", "Four.", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "\nA</think>B"), (Parsed{"A", "B", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "<think>\nA</think>B"), (Parsed{"A", "B", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "no close </thin"), (Parsed{"no close </thin", "", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "</think>\n\n"), (Parsed{"", "", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "a</think>\n \n  indented"), (Parsed{"a", "  indented", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "a</think> b </think> c"), (Parsed{"a", " b </think> c", {}}));
  EXPECT_EQ(parse_all_ways(kInside, "想一想</think>\n\n答案"), (Parsed{"想一想", "答案", {}}));
}

TEST(Reasoning, ModelOpensTheThoughtItself) {
  EXPECT_EQ(parse_all_ways(kDetect, "<think>\nA\n</think>\n\nB"), (Parsed{"A\n", "B", {}}));
  EXPECT_EQ(parse_all_ways(kDetect, " \n<think>A</think>B"), (Parsed{"A", "B", {}}));
  EXPECT_EQ(parse_all_ways(kDetect, "<think>never closed"), (Parsed{"never closed", "", {}}));
  EXPECT_EQ(parse_all_ways(kDetect, "Plain <think>answer</think>"), (Parsed{"", "Plain <think>answer</think>", {}}));
  EXPECT_EQ(parse_all_ways(kDetect, "<thin air"), (Parsed{"", "<thin air", {}}));
  EXPECT_EQ(parse_all_ways(kDetect, "  <th"), (Parsed{"", "  <th", {}}));
  EXPECT_EQ(parse_all_ways(kDetect, ""), (Parsed{"", "", {}}));
}

TEST(Reasoning, OffLeavesTheTextAlone) {
  EXPECT_EQ(parse_all_ways(kNothing, "<think>a</think>\n\nb"), (Parsed{"", "<think>a</think>\n\nb", {}}));
}

TEST(Reasoning, InReasoningFollowsTheStream) {
  const auto parser = OutputParser::make(kInside);
  EXPECT_TRUE(parser->in_reasoning());
  parser->push("a</thi");
  EXPECT_TRUE(parser->in_reasoning());
  parser->push("nk>");
  EXPECT_FALSE(parser->in_reasoning());
}

TEST(Reasoning, HoldsBackOnlyWhatMayBeAMarker) {
  const auto parser = OutputParser::make(kInside);
  const auto deltas = parser->push("abc </");
  ASSERT_EQ(deltas.size(), 1u);
  EXPECT_EQ(deltas[0].text, "abc ");
}

const std::string kR1Call =
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"杭州\"}\n```<｜tool▁call▁end｜>";

TEST(DeepseekTools, OneAndSeveralCalls) {
  const auto options = tools(ToolStyle::kDeepseek);
  EXPECT_EQ(parse_all_ways(options, "<｜tool▁calls▁begin｜>" + kR1Call + "<｜tool▁calls▁end｜>"),
            (Parsed{"", "", {{"get_weather", "{\"city\": \"杭州\"}"}}}));
  EXPECT_EQ(
      parse_all_ways(options,
                     "Let me look.\n\n<｜tool▁calls▁begin｜>" + kR1Call + "\n" + kR1Call + "<｜tool▁calls▁end｜>\n"),
      (Parsed{"", "Let me look.", {{"get_weather", "{\"city\": \"杭州\"}"}, {"get_weather", "{\"city\": \"杭州\"}"}}}));
  EXPECT_EQ(parse_all_ways(options, kR1Call), (Parsed{"", "", {{"get_weather", "{\"city\": \"杭州\"}"}}}));
}

TEST(DeepseekTools, V31WithoutTypeAndFence) {
  const auto options = tools(ToolStyle::kDeepseek);
  const std::string call = "<｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1, \"b\": \"```\"}<｜tool▁call▁end｜>";
  EXPECT_EQ(parse_all_ways(options, "Hm <｜tool▁calls▁begin｜>" + call + call + "<｜tool▁calls▁end｜>"),
            (Parsed{"", "Hm", {{"add", "{\"a\": 1, \"b\": \"```\"}"}, {"add", "{\"a\": 1, \"b\": \"```\"}"}}}));
  EXPECT_EQ(parse_all_ways(options, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}<｜tool▁call▁end｜>"),
            (Parsed{"", "", {{"function", "{}"}}}));
}

TEST(DeepseekTools, AfterAThought) {
  EXPECT_EQ(parse_all_ways({true, true, ToolStyle::kDeepseek},
                           "Look up <｜tool▁calls▁begin｜>.\n</think>\n\n<｜tool▁calls▁begin｜>" + kR1Call +
                               "<｜tool▁calls▁end｜>"),
            (Parsed{"Look up <｜tool▁calls▁begin｜>.\n", "", {{"get_weather", "{\"city\": \"杭州\"}"}}}));
}

TEST(DeepseekTools, CutShort) {
  const auto options = tools(ToolStyle::kDeepseek);
  EXPECT_EQ(parse_all_ways(
                options, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": [1, 2"),
            (Parsed{"", "", {{"f", "{\"a\": [1, 2"}}}));
}

TEST(DeepseekTools, WhatIsNoCallIsContent) {
  const auto options = tools(ToolStyle::kDeepseek);
  for (const std::string text : {
           "<｜tool▁calls▁begin｜>nothing here",
           "<｜tool▁calls▁begin｜>",
           "x <｜tool▁calls▁beg",
           "<｜tool▁call▁begin｜>function<b>",
           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
           "<｜tool▁call▁begin｜>function<｜tool▁sep｜>two words\n{}",
           "plain text with spaces  ",
           "<｜tool▁call▁begin｜>f<｜tool▁sep｜>``",
           "a < b and <｜ c",
       }) {
    EXPECT_EQ(parse_all_ways(options, text), (Parsed{"", text, {}})) << text;
  }
}

TEST(HermesTools, OneAndSeveralCalls) {
  const auto options = tools(ToolStyle::kHermes);
  const std::string call =
      "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"t\": \"}</tool_call>\\\"\"}}\n</tool_call>";
  const std::pair<std::string, std::string> expected{"add", "{\"a\": 1, \"t\": \"}</tool_call>\\\"\"}"};
  EXPECT_EQ(parse_all_ways(options, call), (Parsed{"", "", {expected}}));
  EXPECT_EQ(parse_all_ways(options, "Text.\n" + call + "\n" + call + "\n"),
            (Parsed{"", "Text.", {expected, expected}}));
  EXPECT_EQ(parse_all_ways(options, call + "\nand more"), (Parsed{"", "and more", {expected}}));
}

TEST(HermesTools, ShapesThatModelsWrite) {
  const auto options = tools(ToolStyle::kHermes);
  EXPECT_EQ(parse_all_ways(options, R"(<tool_call>{"arguments":{"a":1},"name":"f"}</tool_call>)"),
            (Parsed{"", "", {{"f", R"({"a":1})"}}}));
  EXPECT_EQ(parse_all_ways(options, R"(<tool_call>{"name":"f","arguments":"{\"a\":1}"}</tool_call>)"),
            (Parsed{"", "", {{"f", R"({"a":1})"}}}));
  EXPECT_EQ(parse_all_ways(options, R"(<tool_call>{"name":"f"}</tool_call>)"), (Parsed{"", "", {{"f", "{}"}}}));
  EXPECT_EQ(parse_all_ways(options, R"(<tool_call>{"name":"f","arguments":null}</tool_call>)"),
            (Parsed{"", "", {{"f", "{}"}}}));
  EXPECT_EQ(parse_all_ways(options, R"(<tool_call>{"id": 12 ,"name":"f\u00e9","arguments":{}})"),
            (Parsed{"", "", {{"fé", "{}"}}}));
  EXPECT_EQ(parse_all_ways(options, R"(<tool_call>{"name":"f","arguments":{"a": [1, {"b": tr)"),
            (Parsed{"", "", {{"f", R"({"a": [1, {"b": tr)"}}}));
}

TEST(HermesTools, WhatIsNoCallIsContent) {
  const auto options = tools(ToolStyle::kHermes);
  for (const std::string text : {
           "<tool_call>not json</tool_call>",
           "<tool_call>\n{\"nome\": 1}",
           "<tool_call>{\"name\": 5}</tool_call>",
           "<tool_call>{\"name\": \"\"}",
           "<tool_call>[1]</tool_call>",
           "<tool_call>{\"name\": \"f\"",
           "a <tool",
           "<tool_call>",
           "<tool_call>{\"arguments\": 3, \"name\": \"f\"}",
           "x <tool_call>{} y",
       }) {
    EXPECT_EQ(parse_all_ways(options, text), (Parsed{"", text, {}})) << text;
  }
}

TEST(HermesTools, BrokenArgumentsLoseNothing) {
  EXPECT_EQ(
      parse_all_ways(tools(ToolStyle::kHermes), R"(<tool_call>{"name":"f","arguments":{"a": oops!}}</tool_call>)"),
      (Parsed{"", R"(!}}</tool_call>)", {{"f", R"({"a": oops)"}}}));
}

TEST(LlamaTools, WholeAnswer) {
  const auto options = tools(ToolStyle::kLlama);
  const std::string call = R"({"name": "f", "parameters": {"a": "x;y"}})";
  const std::pair<std::string, std::string> expected{"f", R"({"a": "x;y"})"};
  EXPECT_EQ(parse_all_ways(options, call), (Parsed{"", "", {expected}}));
  EXPECT_EQ(parse_all_ways(options, "\n<|python_tag|>" + call), (Parsed{"", "", {expected}}));
  EXPECT_EQ(parse_all_ways(options, call + "; " + call + ";\n"), (Parsed{"", "", {expected, expected}}));
  EXPECT_EQ(parse_all_ways(options, call + " Done."), (Parsed{"", " Done.", {expected}}));
  EXPECT_EQ(parse_all_ways(options, R"({"type": "function", "name": "f", "parameters": {"a": "x;y"}})"),
            (Parsed{"", "", {expected}}));
}

TEST(LlamaTools, WhatIsNoCallIsContent) {
  const auto options = tools(ToolStyle::kLlama);
  for (const std::string text : {
           "An answer with {\"name\": \"f\", \"parameters\": {}}",
           "{\"answer\": 42}",
           "{}",
           " {",
           "<|python_tag|>print(1)",
           "<|pyth",
           "",
           "{\"name\": \"f\", \"parameters\"",
       }) {
    EXPECT_EQ(parse_all_ways(options, text), (Parsed{"", text, {}})) << text;
  }
}

TEST(DetectToolStyle, FromTheMarkersOfATemplate) {
  EXPECT_EQ(detect_tool_style("{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'}}"), ToolStyle::kDeepseek);
  EXPECT_EQ(detect_tool_style("within <tool_call></tool_call> XML tags"), ToolStyle::kHermes);
  EXPECT_EQ(detect_tool_style("<|start_header_id|> ... '\"parameters\": '"), ToolStyle::kLlama);
  EXPECT_EQ(detect_tool_style("{{ bos_token }}<｜User｜>"), ToolStyle::kNone);
}

// Any cut gives one answer on text made of marker pieces too.
TEST(OutputParser, RandomMarkerSoup) {
  static constexpr std::string_view kPieces[] = {
      "<think>",
      "</think>",
      "\n",
      "\n\n",
      " ",
      "a",
      "<",
      "<｜tool▁calls▁begin｜>",
      "<｜tool▁call▁begin｜>",
      "function",
      "<｜tool▁sep｜>",
      "f\n```json\n",
      "{\"a\": 1}",
      "\n```",
      "```",
      "<｜tool▁call▁end｜>",
      "<｜tool▁calls▁end｜>",
      "<tool_call>",
      "</tool_call>",
      "{\"name\": \"f\", \"arguments\": ",
      "{\"name\": \"g\", \"parameters\": {}}",
      "}",
      ";",
      "<|python_tag|>",
      "</",
      "<｜",
  };
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int i = 0; i < 8; ++i) text += kPieces[random() % std::size(kPieces)];
    const OutputParserOptions options{random() % 2 == 0, random() % 2 == 0, ToolStyle(random() % 4)};
    parse_all_ways(options, text);
  }
}

std::pair<std::string, std::string> stop(std::vector<std::string> stops, const std::vector<std::string_view>& pieces) {
  StopMatcher matcher(std::move(stops));
  std::string out;
  for (std::string_view piece : pieces) out += matcher.push(piece);
  out += matcher.finish();
  EXPECT_EQ(matcher.stopped(), !matcher.matched().empty());
  return {out, matcher.matched()};
}

TEST(StopMatcher, FindsStopsAcrossPushes) {
  EXPECT_EQ(stop({"END"}, {"some E", "N", "D more"}), std::make_pair(std::string("some "), std::string("END")));
  EXPECT_EQ(stop({"END"}, {"some EN"}), std::make_pair(std::string("some EN"), std::string()));
  EXPECT_EQ(stop({"\n\n", "###"}, {"a\n", "b##", "#"}), std::make_pair(std::string("a\nb"), std::string("###")));
  EXPECT_EQ(stop({"aab"}, {"aaab"}), std::make_pair(std::string("a"), std::string("aab")));
  EXPECT_EQ(stop({"abc", "b"}, {"xabc"}), std::make_pair(std::string("xa"), std::string("b")));
  EXPECT_EQ(stop({"停"}, {"走停走"}), std::make_pair(std::string("走"), std::string("停")));
  EXPECT_EQ(stop({}, {"a", "b"}), std::make_pair(std::string("ab"), std::string()));
  EXPECT_EQ(stop({""}, {"ab"}), std::make_pair(std::string("ab"), std::string()));
}

TEST(StopMatcher, SilentAfterItStopped) {
  StopMatcher matcher({"x"});
  EXPECT_EQ(matcher.push("axb"), "a");
  EXPECT_EQ(matcher.push("c"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, AnyCutGivesTheSame) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 24; ++i) text += char('a' + random() % 2);
    std::vector<std::string> stops;
    for (int i = 0; i < 2; ++i) {
      std::string one;
      for (size_t size = 3 + random() % 5; size > 0; --size) one += char('a' + random() % 2);
      stops.push_back(one);
    }
    const auto whole = stop(stops, {text});
    std::vector<std::string_view> pieces;
    for (size_t at = 0; at < text.size(); at += pieces.back().size()) {
      pieces.push_back(std::string_view(text).substr(at, 1 + random() % 5));
    }
    EXPECT_EQ(stop(stops, pieces), whole) << text << " stops " << stops[0] << ", " << stops[1];
  }
}

}  // namespace
}  // namespace spillway::text
