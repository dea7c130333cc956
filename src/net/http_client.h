// HTTP/1.1 client over TCP and TLS: coroutines, with a small pool of kept-alive connections, and a blocking form for
// programs. It connects only to the URL given: no redirects, no proxies, no retries of what may have been done.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "net/http_message.h"
#include "net/url.h"

namespace spillway::net {

namespace asio = boost::asio;

struct ClientOptions {
  std::string tls_ca_file;  // empty: the system's roots
  bool tls_verify = true;
  size_t idle_connections_max = 64;  // kept alive, of all origins
  Duration idle_timeout = std::chrono::seconds(30);
};

struct ClientRequest {
  std::string method = "GET";
  Url url;
  Headers headers;  // Host, Content-Length and Connection are added
  std::string body;
  Duration connect_timeout = std::chrono::seconds(10);    // name, connection and TLS
  Duration response_timeout = std::chrono::seconds(600);  // request sent to end of the response's header
  Duration read_timeout = std::chrono::seconds(600);      // between two pieces of the body
  uint64_t body_bytes_max = 256 << 20;
};

struct ClientResponse {
  int status = 0;
  Headers headers;
  std::string body;
};

// A response whose body is still coming. Dropping it before the end closes the connection, which tells the server.
class ClientStream {
 public:
  virtual ~ClientStream() = default;
  virtual int status() const = 0;
  virtual const Headers& headers() const = 0;
  // The next piece of the body, valid until the next call; empty at its end. A body cut short is an error.
  virtual asio::awaitable<Result<std::string_view>> read() = 0;
};

class HttpClient {
 public:
  static Result<std::unique_ptr<HttpClient>> create(asio::any_io_executor executor, ClientOptions options = {});
  virtual ~HttpClient() = default;

  // Sends and waits for the response's header. Errors: kUnavailable (refused, reset, name not found, TLS),
  // kDeadlineExceeded, kCorrupt (not HTTP). All on the executor, which one thread at a time runs.
  virtual asio::awaitable<Result<std::unique_ptr<ClientStream>>> open(ClientRequest request) = 0;

  // open, and the whole body.
  asio::awaitable<Result<ClientResponse>> fetch(ClientRequest request);
};

// For programs without an event loop: on_body, where given, gets the pieces as they come (and body stays empty); it
// returns false to stop. Only a response of status 200 is given to on_body; others are collected in body.
Result<ClientResponse> fetch_blocking(ClientRequest request, const ClientOptions& options = {},
                                      const std::function<bool(std::string_view)>& on_body = {});

}  // namespace spillway::net
