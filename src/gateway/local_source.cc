#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <utility>

#include "gateway/source.h"
#include "net/channel.h"

namespace spillway::gateway {
namespace {

// The two sides meet here: the handler writes a piece and waits until the reader is done with it.
class Meeting final : public net::ResponseWriter {
 public:
  explicit Meeting(asio::any_io_executor executor)
      : executor_(executor),
        to_reader_(std::make_shared<net::Signal>(executor)),
        to_writer_(std::make_shared<net::Signal>(executor)) {}

  asio::awaitable<bool> send(int status, net::Headers headers, std::string body) override {
    begin(status, std::move(headers));
    const std::string held = std::move(body);
    const bool taken = co_await write(held);
    const bool ended = co_await end({});
    co_return taken&& ended;
  }
  asio::awaitable<bool> start_stream(int status, net::Headers headers, std::string_view first) override {
    begin(status, std::move(headers));
    co_return co_await write(first);
  }
  asio::awaitable<bool> write(std::string_view chunk) override {
    if (chunk.empty() || left_) co_return !left_;
    piece_ = chunk;
    to_reader_->notify();
    while (!piece_.empty() && !left_) co_await to_writer_->wait_until(TimePoint::max());
    co_return !left_;
  }
  asio::awaitable<bool> end(std::string_view last) override {
    co_await write(last);
    ended_ = true;
    to_reader_->notify();
    co_return !left_;
  }
  bool started() const override { return status_ != 0; }
  bool disconnected() const override { return left_; }
  void on_disconnect(std::function<void()> callback) override {
    if (left_) return callback();
    on_left_ = std::move(callback);
  }
  asio::any_io_executor executor() const override { return executor_; }

  // ---- the reader's side ----
  asio::awaitable<bool> wait_until(TimePoint deadline) { return to_reader_->wait_until(deadline); }
  bool has_piece() const { return !piece_.empty(); }
  std::string_view show() {
    shown_ = true;
    return piece_;
  }
  // What was shown has been used.
  void taken() {
    if (!std::exchange(shown_, false)) return;
    piece_ = {};
    to_writer_->notify();
  }
  void leave() {
    if (std::exchange(left_, true)) return;
    if (on_left_) std::exchange(on_left_, nullptr)();
    to_writer_->notify();
    to_reader_->notify();
  }
  void handler_returned() {
    gone_ = true;
    on_left_ = nullptr;
    to_reader_->notify();
  }
  bool whole() const { return ended_; }
  bool gone() const { return gone_; }
  bool left() const { return left_; }
  int status() const { return status_; }
  const net::Headers& headers() const { return headers_; }

 private:
  void begin(int status, net::Headers headers) {
    status_ = status;
    headers_ = std::move(headers);
    to_reader_->notify();
  }

  const asio::any_io_executor executor_;
  const std::shared_ptr<net::Signal> to_reader_, to_writer_;
  int status_ = 0;
  net::Headers headers_;
  std::string_view piece_;  // what the writer waits to have taken
  bool shown_ = false;
  bool ended_ = false;
  bool gone_ = false;  // the handler has returned
  bool left_ = false;  // the reader has
  std::function<void()> on_left_;
};

asio::awaitable<void> serve(std::shared_ptr<Meeting> meeting, net::Handler handler, net::HttpRequest request) {
  try {
    co_await handler(std::move(request), *meeting);
  } catch (const std::exception&) {  // an answer without an end is told as one that was cut
  }
  meeting->handler_returned();
}

class LocalSource final : public Source {
 public:
  LocalSource(std::shared_ptr<Lane> lane, net::Handler handler, OutgoingRequest request)
      : lane_(std::move(lane)),
        handler_(std::move(handler)),
        request_(std::move(request)),
        meeting_(std::make_shared<Meeting>(lane_->executor())) {}
  ~LocalSource() override { meeting_->leave(); }

  asio::awaitable<Status> open(TimePoint, TimePoint deadline) override {
    net::HttpRequest request;
    request.method = "POST";
    request.target = request.path = request_.path;
    request.headers = request_.headers;
    request.body = request_.body;
    request.id = request_.headers.value_or("X-Request-Id", "");
    asio::co_spawn(lane_->executor(), serve(meeting_, handler_, std::move(request)), asio::detached);
    while (!meeting_->started()) {
      if (meeting_->left()) co_return Error{ErrorCode::kCancelled, "cancelled"};
      if (meeting_->gone()) co_return Error{ErrorCode::kUnavailable, "the local model gave no answer"};
      const bool told = co_await meeting_->wait_until(deadline);
      if (!told) co_return late();
    }
    co_return Status();
  }

  int status() const override { return meeting_->status(); }
  const net::Headers& headers() const override { return meeting_->headers(); }

  asio::awaitable<Result<std::string_view>> read(TimePoint deadline) override {
    meeting_->taken();
    while (!meeting_->has_piece()) {
      if (meeting_->left()) co_return Error{ErrorCode::kCancelled, "cancelled"};
      if (meeting_->whole()) co_return std::string_view();
      if (meeting_->gone())
        co_return Error{ErrorCode::kUnavailable, "the local model stopped in the middle of its answer"};
      const bool told = co_await meeting_->wait_until(deadline);
      if (!told) co_return late();
    }
    co_return meeting_->show();
  }

  void cancel() override { meeting_->leave(); }

 private:
  Error late() {
    meeting_->leave();
    return {ErrorCode::kDeadlineExceeded, "time ran out for the local model to answer"};
  }

  const std::shared_ptr<Lane> lane_;
  const net::Handler handler_;
  const OutgoingRequest request_;
  const std::shared_ptr<Meeting> meeting_;
};

}  // namespace

std::unique_ptr<Source> local_source(std::shared_ptr<Lane> lane, net::Handler handler, OutgoingRequest request) {
  return std::make_unique<LocalSource>(std::move(lane), std::move(handler), std::move(request));
}

}  // namespace spillway::gateway
