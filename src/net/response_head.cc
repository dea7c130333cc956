#include "net/response_head.h"

#include <ctime>

namespace spillway::net {
namespace {

void append_value(std::string& out, std::string_view value) {
  for (char c : value) out += (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f ? ' ' : c;
}

bool is_framing(std::string_view name) {
  return equals_ignoring_case(name, "Content-Length") || equals_ignoring_case(name, "Transfer-Encoding") ||
         equals_ignoring_case(name, "Connection") || equals_ignoring_case(name, "Date");
}

bool is_token(std::string_view name) {
  constexpr std::string_view kSigns = "!#$%&'*+-.^_`|~";
  for (char c : name) {
    const bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!alphanumeric && kSigns.find(c) == std::string_view::npos) return false;
  }
  return !name.empty();
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
