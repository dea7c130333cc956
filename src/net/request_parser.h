// Bytes to HttpRequest, from any cut of the stream; on Beast's grammar, with our limits and refusals. No I/O: the
// connection feeds it, the fuzzer too. One parser a request.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "net/http_message.h"

namespace spillway::net {

struct RequestLimits {
  uint32_t header_bytes_max = 32 << 10;
  uint64_t body_bytes_max = 32 << 20;
};

class RequestParser {
 public:
  enum class State { kHeader, kBody, kDone, kFailed };

  explicit RequestParser(const RequestLimits& limits);
  ~RequestParser();

  // Takes what it can from the front and returns how much; the caller shows the rest again, with more behind it. Bytes
  // after the end of the request are left.
  size_t feed(std::string_view bytes);

  State state() const { return state_; }
  int error_status() const { return error_status_; }  // kFailed: 400, 413, 414, 431, 501 or 505
  std::string_view error_message() const { return error_message_; }
  bool expects_continue() const;  // and the body has not begun
  bool keep_alive() const;        // once the header is there
  uint64_t body_bytes() const;    // so far
  HttpRequest take();             // kDone; peer and id are the caller's to fill

 private:
  class Grammar;
  void fail(int status, std::string_view message);
  void check_header();

  const RequestLimits limits_;
  std::unique_ptr<Grammar> grammar_;
  State state_ = State::kHeader;
  int error_status_ = 0;
  std::string_view error_message_;  // static text
};

}  // namespace spillway::net
