#include "store/location.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/digest.h"

namespace spillway::store {
namespace {

constexpr size_t kNameMax = 512;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with('/')) text.remove_prefix(1);
  while (text.ends_with('/')) text.remove_suffix(1);
  return text;
}

}  // namespace

bool is_location(std::string_view text) { return text.find("://") != text.npos; }

Result<Location> parse_location(std::string_view text) {
  const auto wrong = [&](const char* expected) {
    return invalid(fmt::format("expected {}, found \"{:.200}\"", expected, text));
  };
  Location location;
  if (text.starts_with("s3://")) {
    const std::string_view rest = text.substr(5);
    const size_t slash = std::min(rest.find('/'), rest.size());
    location.bucket = rest.substr(0, slash);
    location.prefix = trimmed(rest.substr(slash));
    const bool plain = std::ranges::all_of(location.bucket, is_plain);
    if (location.bucket.size() < 3 || location.bucket.size() > 63 || !plain) return wrong("s3://BUCKET/PREFIX");
    if (!location.prefix.empty() && !is_safe_name(location.prefix)) return wrong("s3://BUCKET/PREFIX");
    return location;
  }
  const bool http = text.starts_with("http://"), https = text.starts_with("https://");
  if (!http && !https) return wrong("s3://BUCKET/PREFIX or https://HOST/FOLDER");
  location.kind = Location::Kind::kHttp;
  location.base = text;
  const size_t host = location.base.find("://") + 3;
  while (location.base.size() > host && location.base.ends_with('/')) location.base.pop_back();
  const bool odd = std::ranges::any_of(location.base, [](unsigned char c) { return c <= ' ' || c >= 127; });
  if (host >= location.base.size() || odd || location.base.find_first_of("?#") != location.base.npos) {
    return wrong("https://HOST/FOLDER without a query");
  }
  return location;
}

std::string Location::folder_name(std::string_view endpoint) const {
  const std::string whole = kind == Kind::kS3 ? "s3-" + bucket + "-" + prefix : base.substr(base.find("://") + 3);
  std::string name;
  for (const char c : whole) name += is_plain(c) ? c : '-';
  if (name.size() > 80) name.resize(80);
  Digest digest(Digest::Kind::kSha256);
  digest.update(fmt::format("{}\n{}", kind == Kind::kS3 ? endpoint : std::string_view(), whole));
  return name + "-" + digest.hex().substr(0, 12);
}

bool is_safe_name(std::string_view name) {
  if (name.empty() || name.size() > kNameMax) return false;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part.front() == '.' || part.size() > 255) return false;
    begin = end + 1;
  }
  return std::ranges::none_of(name, [](unsigned char c) { return c < ' ' || c == 127 || c == '\\'; });
}

std::string encode_path(std::string_view path) {
  std::string encoded;
  for (const char c : path) {
    if (is_plain(c) || c == '~' || c == '/')
      encoded += c;
    else
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

}  // namespace spillway::store
