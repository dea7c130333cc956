#include "text/grammar_tools.h"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "text/json_schema.h"
#include "text/tokenizer_json.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

constexpr int kCallsMax = 16;
constexpr size_t kToolsMax = 128;
constexpr std::string_view kDeepseekBegin = "<｜tool▁calls▁begin｜>", kHermesBegin = "<tool_call>";

struct Tool {
  std::string name;
  Element arguments;
};

bool is_strict(const JsonAt& function) {
  const json::value* strict = function.find("strict");
  return strict && *strict == true;
}

Result<std::vector<Tool>> parse_tools(const json::value& tools, const Grammar::ToolOptions& options, JsonRules& rules) {
  const std::string& wanted = options.name;
  const json::array* items = tools.if_array();
  if (!items || items->size() > kToolsMax)
    return invalid(fmt::format("expected at most {} tools in an array at tools", kToolsMax));
  std::vector<Tool> out;
  for (size_t i = 0; i < items->size(); ++i) {
    SW_ASSIGN(const JsonAt item, JsonAt::make((*items)[i], fmt::format("tools[{}]", i)));
    SW_ASSIGN(const JsonAt function, item.child("function"));
    SW_ASSIGN(std::string name, function.string("name"));
    if (!wanted.empty() && name != wanted) continue;
    if (!options.required && !is_strict(function)) {
      out.push_back({std::move(name), rules.object()});
      continue;
    }
    // OpenAI: a function without parameters takes none.
    static const json::value kNone = json::object{{"type", "object"}, {"additionalProperties", false}};
    const json::value* schema = function.find("parameters");
    const bool none = !schema || schema->is_null() || (schema->is_object() && schema->get_object().empty());
    SW_ASSIGN(const Element arguments,
              compile_json_schema(none ? kNone : *schema, function.path_of("parameters"), rules));
    out.push_back({std::move(name), arguments});
  }
  if (out.empty()) {
    return invalid(wanted.empty() ? "expected a tool at tools, found none"
                                  : fmt::format("expected a tool named \"{:.60}\" at tools, found none", wanted));
  }
  return out;
}

// first, then up to kCallsMax - 1 times what `more` makes of the calls.
Element several(GrammarRules& rules, Element first, Element more, bool parallel) {
  return rules.concat({first, rules.repeat(more, 0, parallel ? kCallsMax - 1 : 0)});
}

// What follows the marker that opens the calls.
Element deepseek_rest(GrammarRules& rules, const std::vector<Tool>& tools, bool parallel) {
  std::vector<Sequence> calls;
  for (const Tool& tool : tools) {
    calls.push_back({rules.marker("<｜tool▁call▁begin｜>"), rules.literal("function"), rules.marker("<｜tool▁sep｜>"),
                     rules.literal(tool.name + "\n```json\n"), tool.arguments, rules.literal("\n```"),
                     rules.marker("<｜tool▁call▁end｜>")});
  }
  const Element call = rules.one_of(std::move(calls));
  const Element more = rules.concat({rules.literal("\n"), call});
  return rules.concat({several(rules, call, more, parallel), rules.marker("<｜tool▁calls▁end｜>")});
}

// {"name": ..., KEY: ...}
Element named_object(GrammarRules& rules, const std::vector<Tool>& tools, std::string_view key) {
  std::vector<Sequence> calls;
  for (const Tool& tool : tools) {
    const std::string head = fmt::format("{{\"name\": {}, \"{}\": ", json::serialize(json::string(tool.name)), key);
    calls.push_back({rules.literal(head), tool.arguments, rules.literal("}")});
  }
  return rules.one_of(std::move(calls));
}

// What follows the first <tool_call>.
Element hermes_rest(GrammarRules& rules, const std::vector<Tool>& tools, bool parallel) {
  const Element call = rules.concat({rules.literal("\n"), named_object(rules, tools, "arguments"), rules.literal("\n"),
                                     rules.marker("</tool_call>")});
  return several(rules, call, rules.concat({rules.literal("\n"), rules.marker(kHermesBegin), call}), parallel);
}

// The style has one call an answer, which is all of it: what begins with a brace is one.
Element llama(GrammarRules& rules, const std::vector<Tool>& tools, bool required) {
  const Element call = named_object(rules, tools, "parameters");
  if (required) return call;
  ByteSet other;
  other.set();
  for (const char c : std::string_view(" \n\r\t{")) other.reset(uint8_t(c));
  other.reset(uint8_t(kSpecialPrefix));
  const Element blanks = rules.repeat(rules.bytes(" \n\r\t"), 0, -1);
  const Element text = rules.concat({rules.bytes(other), rules.repeat(rules.range(0, 255), 0, -1)});
  const Element tagged = rules.concat({rules.marker("<|python_tag|>"), call});
  return rules.concat({blanks, rules.one_of({{}, {text}, {call}, {tagged}})});
}

}  // namespace

Result<Element> compile_tool_calls(ToolStyle style, const json::value& tools, const Grammar::ToolOptions& options,
                                   JsonRules& json) {
  SW_ASSIGN(const std::vector<Tool> parsed, parse_tools(tools, options, json));
  GrammarRules& rules = json.rules();
  const auto opened_by = [&](std::string_view marker, Element calls) {
    return options.required ? rules.concat({rules.marker(marker), calls}) : free_text_until(rules, marker, calls, true);
  };
  switch (style) {
    case ToolStyle::kDeepseek:
      return opened_by(kDeepseekBegin, deepseek_rest(rules, parsed, options.parallel));
    case ToolStyle::kHermes:
      return opened_by(kHermesBegin, hermes_rest(rules, parsed, options.parallel));
    case ToolStyle::kLlama:
      return llama(rules, parsed, options.required);
    case ToolStyle::kNone:
      break;
  }
  return unsupported("the model's chat template has no tool calls");
}

}  // namespace spillway::text
