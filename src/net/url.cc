#include "net/url.h"

#include <charconv>

#include "net/http_message.h"

namespace spillway::net {
namespace {

Error bad_url(std::string_view text, std::string_view expected) {
  return invalid("url \"" + std::string(text.substr(0, 200)) + "\": expected " + std::string(expected));
}

bool plain(std::string_view text, std::string_view forbidden) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f || forbidden.find(c) != std::string_view::npos) return false;
  }
  return true;
}

Result<uint16_t> parse_port(std::string_view digits, std::string_view url) {
  uint16_t port = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || port == 0) {
    return bad_url(url, "a port from 1 to 65535, found \"" + std::string(digits.substr(0, 20)) + "\"");
  }
  return port;
}

}  // namespace

std::string Url::authority() const {
  std::string out = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port != (tls ? 443 : 80)) out += ":" + std::to_string(port);
  return out;
}

std::string Url::origin() const { return (tls ? "https://" : "http://") + authority(); }

Result<Url> parse_url(std::string_view text) {
  if (text.size() > 8192) return bad_url(text, "at most 8192 bytes, found " + std::to_string(text.size()));
  Url url;
  std::string_view rest = text;
  const size_t scheme_end = rest.find("://");
  const std::string_view scheme = scheme_end == std::string_view::npos ? "" : rest.substr(0, scheme_end);
  if (equals_ignoring_case(scheme, "https")) {
    url.tls = true;
    url.port = 443;
  } else if (!equals_ignoring_case(scheme, "http")) {
    return bad_url(text, "http:// or https://");
  }
  rest.remove_prefix(scheme_end + 3);
  const size_t authority_end = std::min(rest.find_first_of("/?#"), rest.size());
  std::string_view authority = rest.substr(0, authority_end);
  std::string_view target = rest.substr(authority_end);
  target = target.substr(0, target.find('#'));
  if (authority.find('@') != std::string_view::npos) return bad_url(text, "no user name or password in it");

  std::string_view after_host;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return bad_url(text, "a ']' after the IPv6 address");
    url.host = authority.substr(1, close - 1);
    after_host = authority.substr(close + 1);
    if (url.host.find_first_not_of("0123456789abcdefABCDEF:.") != std::string::npos) {
      return bad_url(text, "an IPv6 address in the brackets");
    }
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    after_host = authority.substr(colon);
  }
  if (url.host.empty()) return bad_url(text, "a host");
  if (!plain(url.host, "[]<>\"\\^`{|}%")) return bad_url(text, "a host without spaces or signs");
  if (!after_host.empty()) {
    if (!after_host.starts_with(':')) return bad_url(text, "':' and a port after the host");
    if (after_host.size() > 1) {
      SW_ASSIGN(url.port, parse_port(after_host.substr(1), text));
    }
  }
  if (!plain(target, "")) return bad_url(text, "a path without spaces or control characters");
  url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  return url;
}

Url join_path(const Url& base, std::string_view path) {
  Url joined = base;
  std::string_view folder = std::string_view(base.target).substr(0, base.target.find('?'));
  while (folder.ends_with('/')) folder.remove_suffix(1);
  joined.target = std::string(folder) + (path.starts_with('/') ? "" : "/") + std::string(path);
  return joined;
}

}  // namespace spillway::net
