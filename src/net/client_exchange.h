// One request over one connection and its response, step by step, for callers that need a deadline for each step and
// the right to leave at any moment. HttpClient is made of these. Owned by the request, on the client's executor; one
// step at a time. Not its job: choosing an address, retrying.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "net/client_connection.h"
#include "net/connection_pool.h"
#include "net/http_message.h"
#include "net/response_parser.h"

namespace spillway::net {

class ClientExchange {
 public:
  // connection is open, fresh or from the pool; it goes back there when the response was read whole.
  ClientExchange(std::shared_ptr<ConnectionPool> pool, std::shared_ptr<ClientConnection> connection, bool head_only,
                 uint64_t body_bytes_max);
  ~ClientExchange();
  ClientExchange(const ClientExchange&) = delete;
  ClientExchange& operator=(const ClientExchange&) = delete;

  // Both outlive the step.
  asio::awaitable<Status> send(std::string_view head, std::string_view body, TimePoint deadline);

  // Interim answers (100 to 199) are passed over.
  asio::awaitable<Status> read_head(TimePoint deadline);

  // The next piece of the body, valid until the next call; empty at its end. A body cut short is an error.
  asio::awaitable<Result<std::string_view>> read(TimePoint deadline);

  int status() const { return parser_.status(); }
  const Headers& headers() const { return const_cast<ResponseParser&>(parser_).headers(); }
  bool any_bytes() const { return any_bytes_; }  // of the response

  // Closes the connection, which tells the server; a step under way ends with kCancelled.
  void cancel();

 private:
  Status feed();
  void finish();

  std::shared_ptr<ConnectionPool> pool_;
  std::shared_ptr<ClientConnection> connection_;  // null once the body is whole
  ResponseParser parser_;
  const bool head_only_;
  const uint64_t body_bytes_max_;
  bool any_bytes_ = false;
  bool cancelled_ = false;
  std::string piece_;
};

// "POST /v1/chat HTTP/1.1" and fields; Content-Length where there is a body or the method wants one. Host is added.
std::string request_head(std::string_view method, const Url& url, const Headers& headers, size_t body_bytes);

}  // namespace spillway::net
