// One streamed chat completion and when its parts came. For the load generator: it reads no more of the answer than the
// measurement needs.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "net/http_client.h"

namespace spillway::apps {

struct ChatTimes {
  int status = 0;     // zero: no answer
  std::string error;  // empty for a completed stream and for refusals
  std::optional<double> retry_after_s;
  TimePoint sent, first_token, last_token, done;
  int64_t tokens = 0;  // by the server's usage, else the pieces of text
  int64_t pieces = 0;  // that carried text
};

// on_gap is told the time between two pieces of text, on_piece of each.
boost::asio::awaitable<ChatTimes> exchange_chat(net::HttpClient& client, net::ClientRequest request,
                                                const std::function<void(double)>& on_gap,
                                                const std::function<void()>& on_piece);

// The first id of a /models answer.
std::optional<std::string> parse_first_model(std::string_view body);

std::string chat_body(const std::string& model, const std::string& prompt, int max_tokens, float temperature);

}  // namespace spillway::apps
