#include "gateway/responses_writer.h"

#include "api/errors.h"
#include "net/sse.h"

namespace spillway::gateway {

ResponsesWriter::ResponsesWriter(net::ResponseWriter& client, const ResponsesRequest& request)
    : client_(client), request_(request), translator_(chat_stream_to_response(request.asked)) {}

// Errors are worded alike in both.
net::asio::awaitable<bool> ResponsesWriter::send(int status, net::Headers headers, std::string body) {
  if (status != 200) return client_.send(status, std::move(headers), std::move(body));
  auto response = chat_answer_to_response(request_.asked, body);
  if (response.ok()) return client_.send(status, std::move(headers), std::move(response).value());
  const api::ApiError error{api::ErrorKind::kServerError, "The upstream's answer: " + response.error().message, "", ""};
  return client_.send(error.http_status(), std::move(headers), api::openai_error_body(error));
}

std::string_view ResponsesWriter::translated(std::string_view chunk) {
  out_.clear();
  splitter_.feed(chunk);
  RawEvent event;
  while (splitter_.next(event)) {
    if (event.comment) {
      out_.append(event.bytes);
    } else if (const Status told = translator_->event(event, out_); !told.ok()) {
      net::append_sse_event(out_,
                            api::openai_error_body({api::ErrorKind::kServerError,
                                                    "The upstream's answer: " + told.error().message, "", ""}),
                            "error");
    }
  }
  return out_;
}

net::asio::awaitable<bool> ResponsesWriter::start_stream(int status, net::Headers headers, std::string_view first) {
  return client_.start_stream(status, std::move(headers), translated(first));
}

net::asio::awaitable<bool> ResponsesWriter::write(std::string_view chunk) {
  const std::string_view told = translated(chunk);
  if (told.empty()) co_return !client_.disconnected();
  co_return co_await client_.write(told);
}

net::asio::awaitable<bool> ResponsesWriter::end(std::string_view last) {
  translated(last);
  translator_->finish(out_);
  return client_.end(out_);
}

}  // namespace spillway::gateway
