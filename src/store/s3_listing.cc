#include "store/s3_listing.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace spillway::store {
namespace {

constexpr size_t kObjectsMax = 100000;

// The text between <name> and </name>, from `at` on, which moves behind it. The schema nests no element in one of its
// own name, so the first end is the element's.
std::optional<std::string_view> element(std::string_view xml, std::string_view name, size_t& at) {
  const std::string open = fmt::format("<{}>", name), close = fmt::format("</{}>", name);
  const size_t begin = xml.find(open, at);
  if (begin == xml.npos) return std::nullopt;
  const size_t end = xml.find(close, begin + open.size());
  if (end == xml.npos) return std::nullopt;
  at = end + close.size();
  return xml.substr(begin + open.size(), end - begin - open.size());
}

std::optional<std::string_view> element(std::string_view xml, std::string_view name) {
  size_t at = 0;
  return element(xml, name, at);
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

Status append_entity(std::string& out, std::string_view entity) {
  constexpr std::pair<std::string_view, char> kNamed[] = {
      {"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
  for (const auto& [name, value] : kNamed) {
    if (entity == name) return out += value, Status();
  }
  uint32_t code = 0;
  const bool hex = entity.starts_with("#x");
  const std::string_view digits = entity.substr(std::min<size_t>(hex ? 2 : 1, entity.size()));
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, hex ? 16 : 10);
  if (!entity.starts_with('#') || error != std::errc() || end != digits.data() + digits.size() || code == 0 ||
      code > 0x10FFFF) {
    return corrupt(fmt::format("expected an entity of XML, found \"&{:.20};\"", entity));
  }
  append_utf8(out, code);
  return {};
}

Result<std::string> decode(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '<') return corrupt("expected text in an element of the listing, found another element");
    if (text[at] != '&') {
      out += text[at++];
      continue;
    }
    const size_t end = text.find(';', at);
    if (end == text.npos || end - at > 12) return corrupt("expected an entity of XML, found a bare &");
    SW_TRY(append_entity(out, text.substr(at + 1, end - at - 1)));
    at = end + 1;
  }
  return out;
}

Result<S3Listing::Object> read_object(std::string_view xml) {
  S3Listing::Object object;
  const auto key = element(xml, "Key"), size = element(xml, "Size"), etag = element(xml, "ETag");
  if (!key || !size) return corrupt("expected Key and Size in the listing's Contents, found neither or one");
  SW_ASSIGN(object.key, decode(*key));
  const auto [end, error] = std::from_chars(size->data(), size->data() + size->size(), object.size);
  if (error != std::errc() || end != size->data() + size->size() || object.size < 0) {
    return corrupt(fmt::format("expected a size in the listing, found \"{:.40}\"", *size));
  }
  if (etag) {
    SW_ASSIGN(object.etag, decode(*etag));
  }
  std::erase(object.etag, '"');
  return object;
}

}  // namespace

Result<S3Listing> parse_s3_listing(std::string_view xml) {
  if (xml.find("<ListBucketResult") == xml.npos) {
    return corrupt(fmt::format("expected a ListBucketResult, found \"{:.80}\"", xml));
  }
  S3Listing listing;
  size_t at = 0;
  while (const auto contents = element(xml, "Contents", at)) {
    if (listing.objects.size() >= kObjectsMax) return corrupt(fmt::format("expected at most {} objects", kObjectsMax));
    SW_ASSIGN(auto object, read_object(*contents));
    listing.objects.push_back(std::move(object));
  }
  if (element(xml, "IsTruncated") != "true") return listing;
  const auto next = element(xml, "NextContinuationToken");
  if (!next) return corrupt("expected a NextContinuationToken of a truncated listing, found none");
  SW_ASSIGN(listing.next, decode(*next));
  if (listing.next.empty())
    return corrupt("expected a NextContinuationToken of a truncated listing, found an empty one");
  return listing;
}

std::string s3_error_text(std::string_view xml) {
  const auto code = element(xml, "Code"), message = element(xml, "Message");
  if (!code) return "";
  return fmt::format("{:.80}: {:.200}", *code, message.value_or(""));
}

}  // namespace spillway::store
