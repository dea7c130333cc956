// Tool calls as the chat templates write them, with arguments by each tool's schema.
#pragma once

#include <boost/json/value.hpp>

#include "text/grammar.h"
#include "text/grammar_json.h"

namespace spillway::text {

Result<Element> compile_tool_calls(ToolStyle style, const boost::json::value& tools,
                                   const Grammar::ToolOptions& options, JsonRules& json);

}  // namespace spillway::text
