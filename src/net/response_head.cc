#include "net/response_head.h"

#include <algorithm>
#include <array>
#include <ctime>

namespace spillway::net {
namespace {

bool is_control(char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f; }

void append_value(std::string& out, std::string_view value) {
  if (std::ranges::none_of(value, is_control)) {
    out += value;
    return;
  }
  for (char c : value) out += is_control(c) ? ' ' : c;
}

bool is_framing(std::string_view name) {
  switch (name.empty() ? 0 : name[0] | 0x20) {
    case 'c':
      return equals_ignoring_case(name, "Content-Length") || equals_ignoring_case(name, "Connection");
    case 't':
      return equals_ignoring_case(name, "Transfer-Encoding");
    case 'd':
      return equals_ignoring_case(name, "Date");
    default:
      return false;
  }
}

constexpr std::array<bool, 256> kTokenBytes = [] {
  std::array<bool, 256> table{};
  for (unsigned char c : std::string_view("!#$%&'*+-.^_`|~")) table[c] = true;
  for (int c = '0'; c <= '9'; ++c) table[size_t(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[size_t(c)] = table[size_t(c - 'a' + 'A')] = true;
  return table;
}();

bool is_token(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) { return kTokenBytes[c]; });
}

// Formatted once a second for each thread.
std::string_view date_now() {
  thread_local std::time_t shown = -1;
  thread_local char text[40];
  const std::time_t now = std::time(nullptr);
  if (now != shown) {
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    shown = now;
  }
  return text;
}

}  // namespace

bool has_no_body(int status) { return status < 200 || status == 204 || status == 304; }

std::string response_head(int status, const Headers& headers, const ResponseFraming& framing) {
  std::string out;
  out.reserve(256);
  out.append("HTTP/1.1 ").append(std::to_string(status)).append(" ").append(status_reason(status)).append("\r\n");
  for (const auto& [name, value] : headers) {
    if (is_framing(name) || !is_token(name)) continue;
    out.append(name).append(": ");
    append_value(out, value);
    out.append("\r\n");
  }
  out.append("Date: ").append(date_now()).append("\r\n");
  if (framing.content_length)
    out.append("Content-Length: ").append(std::to_string(*framing.content_length)).append("\r\n");
  if (framing.chunked) out.append("Transfer-Encoding: chunked\r\n");
  if (framing.close) {
    out.append("Connection: close\r\n");
  } else if (framing.http_1_0) {
    out.append("Connection: keep-alive\r\n");
  }
  out.append("\r\n");
  return out;
}

}  // namespace spillway::net
