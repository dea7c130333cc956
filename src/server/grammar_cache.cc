#include "server/grammar_cache.h"

#include <boost/json/serialize.hpp>
#include <utility>

namespace spillway::server {

template <class Make>
GrammarCache::Compiled GrammarCache::get(const std::string& key, bool in_reasoning, const Make& make) {
  const std::string full_key = (in_reasoning ? "r" : "a") + key;
  {
    std::lock_guard lock(mutex_);
    if (const auto found = grammars_.find(full_key); found != grammars_.end()) return found->second;
  }
  // Compiled without the lock: two equal requests at once may both do it, and either result serves.
  SW_ASSIGN(std::shared_ptr<const text::Grammar> grammar, make());
  if (in_reasoning) grammar = text::Grammar::after_marker(grammar, "</think>");
  std::lock_guard lock(mutex_);
  if (grammars_.size() >= kGrammarsMax) grammars_.clear();
  grammars_[full_key] = grammar;
  return grammar;
}

GrammarCache::Compiled GrammarCache::format(const api::ResponseFormat& format, bool in_reasoning) {
  if (format.kind == api::ResponseFormat::Kind::kJsonObject) {
    return get("object", in_reasoning, [] { return text::Grammar::json_object(); });
  }
  return get("schema " + boost::json::serialize(format.schema), in_reasoning,
             [&] { return text::Grammar::json_schema(format.schema); });
}

GrammarCache::Compiled GrammarCache::tools(const api::ChatRequest& request, text::ToolStyle style, bool in_reasoning) {
  const boost::json::value tools = api::template_tools(request);
  const bool required = request.tool_choice.kind != api::ToolChoice::Kind::kAuto;
  const text::Grammar::ToolOptions options{request.tool_choice.function, request.parallel_tool_calls, required};
  const std::string key = "tools " + std::to_string(static_cast<int>(style)) + (options.parallel ? " many " : " one ") +
                          (required ? "" : "or none ") + options.name + " " + boost::json::serialize(tools);
  return get(key, in_reasoning, [&] { return text::Grammar::tool_calls(style, tools, options); });
}

}  // namespace spillway::server
