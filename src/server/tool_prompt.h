// Tools in prompts whose chat template cannot say them. Published DeepSeek-R1 and V3 templates never show the tools and
// leave a single call unclosed; plain templates drop calls and results, or stumble over a call without content. What a
// template can do is found by rendering a probe when the model is made; what it cannot is written into the messages
// before they are rendered. Templates that know tools are left alone. Pure functions, any thread.
// Not its job: parsing calls (text/output_parser.h), forcing them (text/grammar_tools.h).
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "text/chat_template.h"
#include "text/output_parser.h"

namespace spillway::server {

// What a template shows of its variables. As published templates for tools do by default.
struct ToolSupport {
  bool tools = true;         // the tools that there are
  bool calls = true;         // calls of earlier turns, closed
  bool results = true;       // messages of role tool
  bool null_content = true;  // it renders a call without content
  bool system = true;        // messages of role system
};

// tokens: bos_token and eos_token.
ToolSupport probe_tools(const text::ChatTemplate& chat_template, text::ToolStyle style,
                        const boost::json::object& tokens);

// How calls are written: as the template does, else as Hermes does, which is the plainest.
inline text::ToolStyle call_style(text::ToolStyle of_template) {
  return of_template == text::ToolStyle::kNone ? text::ToolStyle::kHermes : of_template;
}

// Makes the template's messages say what the template would not. tools: null, or the request's.
void supply_tools(const ToolSupport& support, text::ToolStyle style, const boost::json::value& tools,
                  boost::json::array& messages);

}  // namespace spillway::server
