// Any bytes as a template, over a fixed conversation: an error or a rendering, never more.
#include <boost/json/parse.hpp>
#include <cstdint>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const boost::json::object kVariables =
      boost::json::parse(R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":"hi </think> x"},
        {"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","content":"3"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"a":[1,2.5]}}}],
        "add_generation_prompt":true,"bos_token":"<s>","eos_token":"</s>"})")
          .as_object();
  const auto parsed = spillway::text::ChatTemplate::parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (parsed.ok()) (void)parsed.value()->render(kVariables);
  return 0;
}
