#include "api/multipart.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "api/common.h"

namespace spillway::api {
namespace {

constexpr size_t kPartsMax = 256;
constexpr size_t kHeaderBytesMax = 4096;

ApiError wrong(std::string message) {
  return {ErrorKind::kInvalidFormat, "multipart/form-data: " + std::move(message), "", ""};
}

bool same_letters(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// The value of key="..." or key=... after a ';'.
std::optional<std::string> parameter(std::string_view header, std::string_view key) {
  size_t at = 0;
  while ((at = header.find(';', at)) != std::string_view::npos) {
    at = header.find_first_not_of(" \t", at + 1);
    if (at == std::string_view::npos) break;
    const size_t equals = header.find('=', at);
    if (equals == std::string_view::npos) break;
    if (!same_letters(header.substr(at, equals - at), key)) continue;
    std::string_view value = header.substr(equals + 1);
    if (!value.starts_with('"')) return std::string(value.substr(0, value.find_first_of("; \t")));
    std::string out;
    for (size_t i = 1; i < value.size() && value[i] != '"'; ++i) {
      if (value[i] == '\\' && i + 1 < value.size()) ++i;
      out += value[i];
    }
    return out;
  }
  return std::nullopt;
}

// Reads the headers of a part; what is left is its body.
Parsed<FormPart> read_part(std::string_view text) {
  FormPart part;
  bool named = false;
  for (;;) {
    const size_t end = text.find("\r\n");
    if (end == std::string_view::npos || end > kHeaderBytesMax)
      return wrong("expected the headers of a part, found none");
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 2);
    if (line.empty()) break;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !same_letters(line.substr(0, colon), "content-disposition")) continue;
    const auto name = parameter(line, "name");
    if (!name) return wrong("expected a name in Content-Disposition, found none");
    part.name = *name;
    part.is_file = parameter(line, "filename").has_value();
    named = true;
  }
  if (!named) return wrong("expected a Content-Disposition in each part, found none");
  part.body = text;
  return part;
}

}  // namespace

bool is_multipart(std::string_view content_type) {
  constexpr std::string_view kType = "multipart/form-data";
  return content_type.size() >= kType.size() && same_letters(content_type.substr(0, kType.size()), kType);
}

Parsed<std::vector<FormPart>> parse_multipart(std::string_view content_type, std::string_view body) {
  const auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > 70)
    return wrong("expected a boundary of 1 to 70 characters");
  const std::string mark = "--" + *boundary;
  if (!body.starts_with(mark)) return wrong("expected the boundary at the start, found something else");
  const std::string next = "\r\n" + mark;
  body.remove_prefix(mark.size());
  std::vector<FormPart> parts;
  while (!body.starts_with("--")) {
    if (!body.starts_with("\r\n")) return wrong("expected a line break after the boundary");
    body.remove_prefix(2);
    const size_t end = body.find(next);
    if (end == std::string_view::npos) return wrong("expected a closing boundary, found the end of the body");
    auto part = read_part(body.substr(0, end));
    if (!part.ok()) return part.error();
    if (parts.size() == kPartsMax) return wrong("expected at most 256 parts");
    parts.push_back(std::move(*part));
    body.remove_prefix(end + next.size());
  }
  return parts;
}

}  // namespace spillway::api
