#include "net/http_connection.h"

#include <boost/asio/post.hpp>
#include <charconv>

#include "base/log.h"
#include "metrics/metrics.h"
#include "net/request_id.h"
#include "net/response_head.h"

namespace spillway::net {
namespace {

metrics::Gauge open_connections{"spillway_http_connections", "HTTP connections now open."};
metrics::Counter refused_requests{
    "spillway_http_refused_total", "Requests that the HTTP layer refused itself, by status.", {"status"}};
metrics::Counter failed_handlers{"spillway_http_handler_failures_total",
                                 "Handlers that threw or gave no whole answer."};

constexpr size_t kHeaderRead = 2048;
constexpr size_t kBodyRead = 32 << 10;

}  // namespace

void ServerShared::connection_opened() {
  connections.fetch_add(1);
  open_connections->add(1);
}

void ServerShared::connection_closed() {
  open_connections->add(-1);
  if (connections.fetch_sub(1) > 1) return;
  std::lock_guard lock(mutex);
  all_closed.notify_all();
}

asio::awaitable<bool> HttpConnection::serve_request() {
  if (!co_await await_first_byte()) co_return false;
  RequestParser parser({shared_->options.header_bytes_max, shared_->options.body_bytes_max});
  const bool received = co_await receive(parser);
  if (received) {
    HttpRequest request = parser.take();
    request.peer = peer_;
    request.id = request_id(request.headers.value_or("X-Request-Id", ""));
    begin_response(request, parser.keep_alive());
    co_await answer(std::move(request));
  }
  shared_->bodies_bytes.fetch_sub(std::exchange(charged_, 0));
  co_return received && !close_after_ && !broken_;
}

asio::awaitable<bool> HttpConnection::receive(RequestParser& parser) {
  const TimePoint header_started = std::chrono::steady_clock::now();
  TimePoint body_started;
  bool in_body = false;
  for (;;) {
    inbox_.consume(parser.feed(inbox_.bytes()));
    if (parser.state() == RequestParser::State::kFailed) {
      co_await refuse(parser.error_status(), parser.error_message());
      co_return false;
    }
    if (!charge_body(parser.body_bytes())) {
      co_await refuse(503, "the server receives too many large requests at once");
      co_return false;
    }
    if (parser.state() == RequestParser::State::kDone) co_return true;
    if (!in_body && parser.state() == RequestParser::State::kBody) {
      in_body = true;
      body_started = std::chrono::steady_clock::now();
      if (parser.expects_continue() && inbox_.empty()) {
        static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
        if (!co_await write_all(pieces(kContinue))) co_return false;
      }
    }
    const TimePoint deadline =
        in_body ? body_deadline(body_started, parser.body_bytes()) : header_started + shared_->options.header_timeout;
    const Read read = co_await read_more(in_body ? kBodyRead : kHeaderRead, deadline);
    if (read == Read::kClosed) co_return false;
    if (read == Read::kLate) {
      co_await refuse(408, in_body ? "the body came too slowly" : "the header came too slowly");
      co_return false;
    }
  }
}

// An absolute limit, and a minimum rate once the grace is over.
TimePoint HttpConnection::body_deadline(TimePoint started, uint64_t received) const {
  const HttpServerOptions& options = shared_->options;
  const Duration by_rate =
      options.rate_grace + from_seconds(double(received) / double(std::max<uint64_t>(1, options.rate_bytes_per_s_min)));
  return started + std::min(options.body_timeout, by_rate);
}

bool HttpConnection::charge_body(uint64_t bytes) {
  const uint64_t more = bytes - charged_;
  if (more == 0) return true;
  charged_ = bytes;
  return shared_->bodies_bytes.fetch_add(more) + more <= shared_->options.bodies_bytes_max;
}

void HttpConnection::begin_response(const HttpRequest& request, bool keep_alive) {
  phase_ = Phase::kWaiting;
  head_only_ = request.method == "HEAD";
  http_1_0_ = request.version_minor == 0;
  chunked_ = false;
  close_after_ = !keep_alive;
}

asio::awaitable<void> HttpConnection::refuse(int status, std::string_view message) {
  refused_requests.with({std::to_string(status)}).add();
  phase_ = Phase::kWaiting;
  head_only_ = http_1_0_ = chunked_ = false;
  close_after_ = true;
  co_await send_error(status, message);
}

asio::awaitable<bool> HttpConnection::send_error(int status, std::string_view message) {
  ErrorBody body;
  if (shared_->options.error_body) {
    body = shared_->options.error_body(status, message);
  } else {
    body.body = std::string(message) + "\n";
  }
  Headers headers{{"Content-Type", body.content_type}};
  if (status == 503) headers.add("Retry-After", std::to_string(shared_->options.retry_after_s));
  return send(status, std::move(headers), std::move(body.body));
}

asio::awaitable<void> HttpConnection::answer(HttpRequest request) {
  const std::string id = request.id;
  handling_ = true;
  inbox_.shrink(kHeaderRead);
  // Listened for once the handler waits: one that goes on to another server sends first, one that answers at once needs
  // no read.
  asio::post(executor_, [self = shared_from_this()] {
    if (self->handling_) self->start_read(kHeaderRead);
  });
  std::string failure;
  try {
    co_await shared_->handler(std::move(request), *this);
    if (phase_ != Phase::kDone && !disconnected()) failure = "no whole answer was given";
  } catch (const std::exception& error) {
    failure = std::string("exception: ") + error.what();
  } catch (...) {
    failure = "an exception of no known type";
  }
  finish_response();
  if (!failure.empty()) {
    failed_handlers->add();
    SW_ERROR("request {}: {}", id, failure);
  }
  if (phase_ == Phase::kWaiting && !disconnected()) {
    co_await send_error(500, "internal error");
  } else if (phase_ != Phase::kDone) {
    cut();
  }
}

void HttpConnection::finish_response() {
  handling_ = false;
  on_disconnect_ = nullptr;
}

void HttpConnection::on_disconnect(std::function<void()> callback) {
  on_disconnect_ = std::move(callback);
  if (disconnected()) tell_disconnected();
}

void HttpConnection::tell_disconnected() {
  if (!handling_ || !on_disconnect_) return;
  std::exchange(on_disconnect_, nullptr)();
}

asio::awaitable<bool> HttpConnection::send(int status, Headers headers, std::string body) {
  if (phase_ != Phase::kWaiting) co_return false;
  phase_ = Phase::kDone;
  close_after_ |= shared_->draining || headers.has_token("Connection", "close");
  ResponseFraming framing{.content_length = body.size(), .close = close_after_, .http_1_0 = http_1_0_};
  if (has_no_body(status)) framing.content_length.reset();
  const std::string head = response_head(status, headers, framing);
  const bool with_body = !head_only_ && !has_no_body(status);
  WriteBuffers buffers = pieces(head, with_body ? std::string_view(body) : std::string_view());
  if (write_at_once(buffers)) co_return !broken_;
  co_return co_await write_slowly(buffers);
}

namespace {

// A chunk's size line; the text lives as long as this does.
struct ChunkHead {
  explicit ChunkHead(size_t bytes) {
    char* end = std::to_chars(text, text + 16, bytes, 16).ptr;
    *end++ = '\r';
    *end++ = '\n';
    size = size_t(end - text);
  }
  std::string_view view() const { return {text, size}; }

  char text[20];
  size_t size = 0;
};

}  // namespace

asio::awaitable<bool> HttpConnection::start_stream(int status, Headers headers, std::string_view first) {
  if (phase_ != Phase::kWaiting) co_return false;
  phase_ = Phase::kStreaming;
  chunked_ = !http_1_0_ && !has_no_body(status);
  head_only_ |= has_no_body(status);
  close_after_ |= http_1_0_ || shared_->draining || headers.has_token("Connection", "close");
  const ResponseFraming framing{.content_length = {}, .chunked = chunked_, .close = close_after_};
  std::string head = response_head(status, headers, framing);
  if (head_only_ || first.empty()) co_return co_await write_all(pieces(head));
  if (!chunked_) co_return co_await write_all(pieces(head, first));
  head.append(ChunkHead(first.size()).view());
  co_return co_await write_all(pieces(head, first, "\r\n"));
}

asio::awaitable<bool> HttpConnection::write(std::string_view chunk) {
  if (phase_ != Phase::kStreaming) co_return false;
  if (head_only_ || chunk.empty()) co_return !broken_;
  if (!chunked_) co_return co_await write_all(pieces(chunk));
  const ChunkHead head(chunk.size());
  WriteBuffers buffers = pieces(head.view(), chunk, "\r\n");
  if (write_at_once(buffers)) co_return !broken_;
  co_return co_await write_slowly(buffers);
}

asio::awaitable<bool> HttpConnection::end(std::string_view last) {
  if (phase_ != Phase::kStreaming) co_return false;
  phase_ = Phase::kDone;
  if (head_only_) co_return !broken_;
  if (!chunked_) co_return last.empty() ? !broken_ : co_await write_all(pieces(last));
  if (last.empty()) co_return co_await write_all(pieces("0\r\n\r\n"));
  const ChunkHead head(last.size());
  co_return co_await write_all(pieces(head.view(), last, "\r\n0\r\n\r\n"));
}

}  // namespace spillway::net
