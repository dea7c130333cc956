// Exchange: one HTTP request and its answer, with what every route needs: JSON bodies, errors in the endpoint's
// dialect, the headers that all answers carry, limits that clients set in headers. Lives in the router's frame, on its
// connection's thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/common.h"
#include "api/errors.h"
#include "base/clock.h"
#include "net/http_server.h"
#include "server/completion.h"
#include "server/request_account.h"
#include "server/server.h"

namespace spillway::server {

namespace asio = net::asio;

enum class Dialect { kOpenAi, kAnthropic, kTei, kPlain };

class Exchange {
 public:
  Exchange(Server& server, net::HttpRequest request, net::ResponseWriter& writer, Dialect dialect);
  ~Exchange() { server_.release_unpacked(unpacked_bytes_); }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  Server& server() { return server_; }
  const net::HttpRequest& request() const { return request_; }
  RequestAccount& account() { return account_; }
  // Gives the request a place among those that the console shows.
  void begin_timeline(std::string route);
  net::ResponseWriter& writer() { return writer_; }
  Dialect dialect() const { return dialect_; }
  void set_dialect(Dialect dialect) { dialect_ = dialect; }
  // What stands for the "{}"s of the route's path, in order.
  const std::string& argument(size_t index) const { return arguments_.at(index); }
  size_t arguments() const { return arguments_.size(); }
  void set_arguments(std::vector<std::string> arguments) { arguments_ = std::move(arguments); }
  TimePoint received() const { return account_.received(); }

  asio::awaitable<void> send_json(int status, std::string body);
  asio::awaitable<void> send_text(int status, const char* content_type, std::string body);
  asio::awaitable<void> send_error(api::ApiError error);  // a named one: see answer() in router.cc
  asio::awaitable<void> send_refused(Refused refused);
  asio::awaitable<bool> start_stream(std::string_view content_type, std::string_view first = {});

  // The body as it was before Content-Encoding (gzip, deflate); false where that failed, which has been told.
  asio::awaitable<bool> unpack_body();

  // Whether the server's front took the request, and then has answered it.
  asio::awaitable<bool> answer_by_front();

  // Headers of every answer: request id, CORS, content type.
  net::Headers headers(std::string_view content_type) const;
  void set_header(std::string name, std::string value) { extra_.set(name, std::move(value)); }

  std::string error_body(const api::ApiError& error) const;

  // X-Request-Deadline: milliseconds from now within which the whole answer is wanted; goes before the body's.
  api::Parsed<TimePoint> deadline(std::optional<int64_t> deadline_ms) const;
  // X-Priority: low, normal, high or a number; goes before the body's.
  api::Parsed<engine::Priority> priority(engine::Priority asked) const;

  // For the metrics: the outcome of the exchange, set by what was sent.
  int status() const { return status_; }
  const char* outcome() const { return outcome_; }
  void set_outcome(const char* outcome) { outcome_ = outcome; }

  // What the routes add to as they learn it; told to the server's sinks at the end.
  telemetry::RequestRecord& record() { return account_.record(); }

 private:
  Server& server_;
  net::HttpRequest request_;
  net::ResponseWriter& writer_;
  Dialect dialect_;
  std::vector<std::string> arguments_;
  net::Headers extra_;
  uint64_t unpacked_bytes_ = 0;  // charged to the server
  int status_ = 0;
  const char* outcome_ = "ok";
  RequestAccount account_;
};

// The key that a request presents; empty: none.
std::string_view key_of(const net::HttpRequest& request);

// "PREFIX" and 24 random hexadecimal digits.
std::string random_id(std::string_view prefix);
int64_t unix_seconds();

}  // namespace spillway::server
