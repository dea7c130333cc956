// Bytes to an HTTP response, piece by piece: the head first, then the body as it comes. On Beast's grammar. No I/O.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http_message.h"

namespace spillway::net {

class ResponseParser {
 public:
  // head_only: the answer to HEAD, which has no body whatever it says.
  ResponseParser(bool head_only, uint64_t body_bytes_max);
  ResponseParser(ResponseParser&&) noexcept;
  ResponseParser& operator=(ResponseParser&&) noexcept;
  ~ResponseParser();

  // Takes what it can from the front and returns how much; the caller shows the rest again. Body bytes are appended to
  // body(), which the caller empties.
  Result<size_t> feed(std::string_view bytes);
  Status end_of_stream();  // the server closed: an error unless the body was delimited so

  bool header_done() const;
  bool done() const;
  bool keep_alive() const;
  int status() const;
  Headers& headers();
  std::string& body();

 private:
  class Grammar;
  std::unique_ptr<Grammar> grammar_;
};

}  // namespace spillway::net
