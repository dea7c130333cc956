// HTTP/1.1 server over TCP and TLS. Each connection lives on one I/O thread, and so does its handler: a handler never
// blocks, it awaits. The server bounds what strangers can make it hold (connections, bytes, time) and answers what it
// refuses; what the requests mean is the handler's business, not the server's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "net/http_message.h"

namespace spillway::net {

namespace asio = boost::asio;

// Where a handler puts its answer. Lives until the handler returns; used on the handler's executor only. Every write
// waits until the socket took the bytes, so a slow reader slows its handler and nobody buffers without bound; false
// means that the client is gone or too slow, and further writes do nothing.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  // A whole response. Content-Length, Date and Connection are added.
  virtual asio::awaitable<bool> send(int status, Headers headers, std::string body) = 0;

  // A response in pieces (chunked; until close for HTTP/1.0): start_stream, any number of write, end. A handler that
  // returns or throws without end() has the connection cut, so that the client sees the loss. Each is one write to the
  // socket, also where a first or last chunk goes with it. Chunks outlive the call.
  virtual asio::awaitable<bool> start_stream(int status, Headers headers, std::string_view first = {}) = 0;
  virtual asio::awaitable<bool> write(std::string_view chunk) = 0;
  virtual asio::awaitable<bool> end(std::string_view last = {}) = 0;

  virtual bool started() const = 0;
  virtual bool disconnected() const = 0;
  // Called once, on the executor, when the client closes while the handler is at work (at once if it already has).
  // It must not touch the writer; typically it cancels what the handler waits for.
  virtual void on_disconnect(std::function<void()> callback) = 0;
  virtual asio::any_io_executor executor() const = 0;
};

using Handler = std::function<asio::awaitable<void>(HttpRequest, ResponseWriter&)>;

// The body of an answer that the server itself gives (400, 408, 413, 414, 431, 500, 503).
struct ErrorBody {
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};
using ErrorFormatter = std::function<ErrorBody(int status, std::string_view message)>;

struct HttpServerOptions {
  std::string address = "0.0.0.0";   // "::" serves IPv6 and IPv4
  uint16_t port = 0;                 // 0: any free one
  std::string tls_certificate_file;  // PEM chain; with the key, TLS is on
  std::string tls_key_file;
  int io_threads = 1;
  int backlog = 1024;

  size_t connections_max = 4096;  // over it: 503 with Retry-After, and closed
  int retry_after_s = 1;
  uint32_t header_bytes_max = 32 << 10;  // request line and header fields
  uint64_t body_bytes_max = 32 << 20;
  uint64_t bodies_bytes_max = 512 << 20;    // of all bodies being received together
  uint32_t pipelined_bytes_max = 64 << 10;  // read ahead while a handler is at work

  Duration header_timeout = std::chrono::seconds(10);  // first byte to end of header; also the TLS handshake
  Duration body_timeout = std::chrono::seconds(120);
  uint64_t rate_bytes_per_s_min = 1024;  // bodies and reads slower than this after rate_grace are cut
  Duration rate_grace = std::chrono::seconds(10);
  Duration idle_timeout = std::chrono::seconds(75);   // keep-alive between requests
  Duration write_timeout = std::chrono::seconds(30);  // a reader that takes nothing for so long is cut

  ErrorFormatter error_body;  // plain text when not given
};

class HttpServer {
 public:
  // Listens when it returns. The handler is copied to every I/O thread's connections and must be safe to call on each.
  static Result<std::unique_ptr<HttpServer>> start(HttpServerOptions options, Handler handler);
  virtual ~HttpServer() = default;  // cuts what is still open

  virtual uint16_t port() const = 0;
  virtual size_t connections() const = 0;  // now open

  // New connections are refused by the system from here on; open ones go on.
  virtual void stop_accepting() = 0;

  // Stops accepting, lets each connection finish the response it is at (with Connection: close), closes idle ones. True
  // when all had finished by the deadline; the rest is cut. Blocks; not for an I/O thread.
  virtual bool drain(TimePoint deadline) = 0;
};

}  // namespace spillway::net
