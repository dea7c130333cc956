// Any bytes as a generation, in two ways of cutting: both must give the same text in every part.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/output_parser.h"

namespace {

std::string run(const spillway::text::OutputParserOptions& options, std::string_view text, size_t piece) {
  const auto parser = spillway::text::OutputParser::make(options);
  std::string parts[3];
  const auto add = [&](const auto& deltas) {
    for (const auto& delta : deltas) {
      if (!delta.tool_name.empty()) parts[2] += "|" + delta.tool_name + "|";
      parts[int(delta.kind)] += delta.text;
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) add(parser->push(text.substr(at, piece)));
  add(parser->finish());
  return parts[0] + '\0' + parts[1] + '\0' + parts[2];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const spillway::text::OutputParserOptions options{(data[0] & 1) != 0, (data[0] & 2) != 0,
                                                    spillway::text::ToolStyle((data[0] >> 2) & 3)};
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (run(options, text, text.size() + 1) != run(options, text, 1 + data[1] % 7)) std::abort();
  return 0;
}
