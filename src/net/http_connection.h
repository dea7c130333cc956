// One connection of the server: reads requests, runs the handler for each, writes its answers. Owned by its own
// coroutine; everything happens on one I/O thread. One read is always pending while a handler is at work, so that a
// client who leaves is noticed at once; bytes of the next request that come by it are kept.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_set>

#include "net/byte_inbox.h"
#include "net/http_server.h"
#include "net/request_parser.h"
#include "net/tls_context.h"
#include "net/transport.h"
#include "net/wait_point.h"

namespace spillway::net {

// What all connections of a server share; any thread.
struct ServerShared {
  HttpServerOptions options;
  Handler handler;
  TlsContext tls;  // null: plain
  std::atomic<bool> draining{false};
  std::atomic<uint64_t> bodies_bytes{0};
  std::atomic<size_t> connections{0};
  std::mutex mutex;
  std::condition_variable all_closed;  // connections is zero

  void connection_opened();
  void connection_closed();
};

class HttpConnection final : public ResponseWriter, public std::enable_shared_from_this<HttpConnection> {
 public:
  // The connections of one I/O thread.
  using Set = std::unordered_set<HttpConnection*>;

  HttpConnection(Tcp::socket socket, std::shared_ptr<ServerShared> shared);
  ~HttpConnection() override;

  // The whole life of the connection; siblings holds it meanwhile.
  static asio::awaitable<void> serve(std::shared_ptr<HttpConnection> self, Set& siblings);

  void leave_if_idle();  // the server drains
  void cut();            // closes at once; whoever waits is told

  asio::awaitable<bool> send(int status, Headers headers, std::string body) override;
  asio::awaitable<bool> start_stream(int status, Headers headers, std::string_view first) override;
  asio::awaitable<bool> write(std::string_view chunk) override;
  asio::awaitable<bool> end(std::string_view last) override;
  bool started() const override { return phase_ != Phase::kWaiting; }
  bool disconnected() const override { return closed_ || broken_; }
  void on_disconnect(std::function<void()> callback) override;
  asio::any_io_executor executor() const override { return executor_; }

 private:
  enum class Phase { kWaiting, kStreaming, kDone };  // of the response
  enum class Read { kBytes, kClosed, kLate };
  enum class Waiting { kNothing, kRead, kOperation };

  // http_connection.cc: requests and responses
  asio::awaitable<bool> serve_request();  // whether another may follow
  asio::awaitable<bool> receive(RequestParser& parser);
  asio::awaitable<void> refuse(int status, std::string_view message);
  asio::awaitable<void> answer(HttpRequest request);
  asio::awaitable<bool> send_error(int status, std::string_view message);
  void begin_response(const HttpRequest& request, bool keep_alive);
  void finish_response();
  bool charge_body(uint64_t bytes);
  TimePoint body_deadline(TimePoint started, uint64_t received) const;

  // http_connection_io.cc: bytes, time, closing
  asio::awaitable<bool> handshake();
  asio::awaitable<bool> await_first_byte();
  asio::awaitable<Read> read_more(size_t count, TimePoint deadline);
  bool write_at_once(WriteBuffers& buffers);
  asio::awaitable<bool> write_all(WriteBuffers buffers);
  asio::awaitable<bool> write_slowly(WriteBuffers buffers);
  asio::awaitable<void> finish_operation(TimePoint deadline);
  asio::awaitable<void> linger();
  void start_read(size_t count);
  void on_read(IoError error, size_t count);
  void on_operation(IoError error, size_t count);
  void tell_disconnected();

  const std::shared_ptr<ServerShared> shared_;
  Transport transport_;
  const asio::any_io_executor executor_;
  WaitPoint point_;  // where the one coroutine waits
  Waiting waiting_ = Waiting::kNothing;
  std::string peer_;

  ByteInbox inbox_;
  bool read_pending_ = false;
  bool idle_ = false;      // between requests
  bool first_ = true;      // no request has come yet
  bool handling_ = false;  // a handler is at work
  bool closed_ = false;    // the client sends no more
  bool broken_ = false;    // nothing more can be written

  bool operation_pending_ = false;  // a write, a TLS handshake or shutdown
  IoError operation_error_;
  size_t operation_bytes_ = 0;

  Phase phase_ = Phase::kWaiting;
  bool head_only_ = false;
  bool http_1_0_ = false;
  bool chunked_ = false;
  bool close_after_ = false;
  uint64_t charged_ = 0;  // of ServerShared::bodies_bytes
  std::function<void()> on_disconnect_;
};

}  // namespace spillway::net
