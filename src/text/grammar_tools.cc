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

struct Tool {
  std::string name;
  Element arguments;
};

Result<std::vector<Tool>> parse_tools(const json::value& tools, const std::string& wanted, JsonRules& rules) {
  const json::array* items = tools.if_array();
  if (!items || items->size() > kToolsMax)
    return invalid(fmt::format("expected at most {} tools in an array at tools", kToolsMax));
  std::vector<Tool> out;
  for (size_t i = 0; i < items->size(); ++i) {
    SW_ASSIGN(const JsonAt item, JsonAt::make((*items)[i], fmt::format("tools[{}]", i)));
    SW_ASSIGN(const JsonAt function, item.child("function"));
    SW_ASSIGN(std::string name, function.string("name"));
    if (!wanted.empty() && name != wanted) continue;
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

Element deepseek(GrammarRules& rules, const std::vector<Tool>& tools, bool parallel) {
  std::vector<Sequence> calls;
  for (const Tool& tool : tools) {
    calls.push_back({rules.marker("<｜tool▁call▁begin｜>"), rules.literal("function"), rules.marker("<｜tool▁sep｜>"),
                     rules.literal(tool.name + "\n```json\n"), tool.arguments, rules.literal("\n```"),
                     rules.marker("<｜tool▁call▁end｜>")});
  }
  const Element call = rules.one_of(std::move(calls));
  const Element more = rules.concat({rules.literal("\n"), call});
  return rules.concat({rules.marker("<｜tool▁calls▁begin｜>"), several(rules, call, more, parallel),
                       rules.marker("<｜tool▁calls▁end｜>")});
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

Element hermes(GrammarRules& rules, const std::vector<Tool>& tools, bool parallel) {
  const Element call =
      rules.concat({rules.marker("<tool_call>"), rules.literal("\n"), named_object(rules, tools, "arguments"),
                    rules.literal("\n"), rules.marker("</tool_call>")});
  return several(rules, call, rules.concat({rules.literal("\n"), call}), parallel);
}

}  // namespace

Result<Element> compile_tool_calls(ToolStyle style, const json::value& tools, const Grammar::ToolOptions& options,
                                   JsonRules& rules) {
  SW_ASSIGN(const std::vector<Tool> parsed, parse_tools(tools, options.name, rules));
  switch (style) {
    case ToolStyle::kDeepseek:
      return deepseek(rules.rules(), parsed, options.parallel);
    case ToolStyle::kHermes:
      return hermes(rules.rules(), parsed, options.parallel);
    case ToolStyle::kLlama:
      return named_object(rules.rules(), parsed, "parameters");  // the style has one call an answer
    case ToolStyle::kNone:
      break;
  }
  return unsupported("the model's chat template has no tool calls");
}

}  // namespace spillway::text
