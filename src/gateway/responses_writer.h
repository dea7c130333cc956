// ResponsesWriter: stands before the client's writer while a request to the responses API goes its way as a chat
// completion, and puts what is written into the words of responses. Owned by the request's coroutine, on its thread;
// the journey knows nothing of it.
#pragma once

#include <memory>
#include <string>

#include "gateway/sse_events.h"
#include "gateway/translate/responses.h"
#include "net/http_server.h"

namespace spillway::gateway {

class ResponsesWriter final : public net::ResponseWriter {
 public:
  // Both outlive it.
  ResponsesWriter(net::ResponseWriter& client, const ResponsesRequest& request);

  net::asio::awaitable<bool> send(int status, net::Headers headers, std::string body) override;
  net::asio::awaitable<bool> start_stream(int status, net::Headers headers, std::string_view first) override;
  net::asio::awaitable<bool> write(std::string_view chunk) override;
  net::asio::awaitable<bool> end(std::string_view last) override;

  bool started() const override { return client_.started(); }
  bool disconnected() const override { return client_.disconnected(); }
  void on_disconnect(std::function<void()> callback) override { client_.on_disconnect(std::move(callback)); }
  net::asio::any_io_executor executor() const override { return client_.executor(); }

 private:
  std::string_view translated(std::string_view chunk);

  net::ResponseWriter& client_;
  const ResponsesRequest& request_;
  std::unique_ptr<StreamTranslator> translator_;
  EventSplitter splitter_;
  std::string out_;  // what is being written
};

}  // namespace spillway::gateway
