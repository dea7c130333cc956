#include "apps/load/chat_exchange.h"

#include <boost/json.hpp>
#include <charconv>

#include "net/sse.h"

namespace spillway::apps {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

TimePoint now() { return std::chrono::steady_clock::now(); }

struct Chunk {
  bool has_text = false;
  int64_t usage_tokens = 0;
  bool is_error = false;
};

const json::value* at(const json::value* value, std::string_view key) {
  const json::object* object = value ? value->if_object() : nullptr;
  return object ? object->if_contains(key) : nullptr;
}

bool is_text(const json::value* value) { return value && value->is_string() && !value->get_string().empty(); }

std::optional<Chunk> parse_chunk(std::string_view data) {
  json::error_code failed;
  unsigned char memory[4096];
  json::monotonic_resource resource(memory);
  const json::value parsed = json::parse(data, failed, &resource);
  if (failed || !parsed.is_object()) return std::nullopt;
  Chunk chunk;
  chunk.is_error = at(&parsed, "error") != nullptr;
  const json::value* tokens = at(at(&parsed, "usage"), "completion_tokens");
  if (tokens && tokens->is_int64()) chunk.usage_tokens = tokens->get_int64();
  const json::value* choices = at(&parsed, "choices");
  if (!choices || !choices->is_array()) return chunk;
  for (const json::value& choice : choices->get_array()) {
    const json::value* delta = at(&choice, "delta");
    const json::value* calls = at(delta, "tool_calls");
    chunk.has_text |= is_text(at(delta, "content")) || is_text(at(delta, "reasoning_content")) ||
                      (calls && calls->is_array() && !calls->get_array().empty());
  }
  return chunk;
}

// Delta seconds only; a date is not what servers of this kind send.
std::optional<double> parse_retry_after(const net::Headers& headers) {
  const auto value = headers.find("Retry-After");
  double delay = 0;
  if (!value || std::from_chars(value->data(), value->data() + value->size(), delay).ec != std::errc()) {
    return std::nullopt;
  }
  return delay;
}

class StreamReader {
 public:
  StreamReader(ChatTimes& times, const std::function<void(double)>& on_gap, const std::function<void()>& on_piece)
      : times_(times), on_gap_(on_gap), on_piece_(on_piece) {}

  Status feed(std::string_view bytes) {
    return parser_.feed(bytes, [this](const net::SseEvent& event) { take(event); });
  }
  bool done() const { return done_; }

 private:
  void take(const net::SseEvent& event) {
    if (event.is_comment || done_) return;
    if (event.data == "[DONE]") {
      done_ = true;
      return;
    }
    const auto chunk = parse_chunk(event.data);
    if (!chunk || chunk->is_error) {
      times_.error = chunk ? "an error in the stream" : "an event that is not a JSON object";
      return;
    }
    if (chunk->usage_tokens > 0) times_.tokens = chunk->usage_tokens;
    if (!chunk->has_text) return;
    const TimePoint at = now();
    if (times_.pieces++ == 0) {
      times_.first_token = at;
    } else {
      on_gap_(seconds(at - times_.last_token));
    }
    times_.last_token = at;
    on_piece_();
  }

  net::SseParser parser_;
  ChatTimes& times_;
  const std::function<void(double)>& on_gap_;
  const std::function<void()>& on_piece_;
  bool done_ = false;
};

}  // namespace

asio::awaitable<ChatTimes> exchange_chat(net::HttpClient& client, net::ClientRequest request,
                                         const std::function<void(double)>& on_gap,
                                         const std::function<void()>& on_piece) {
  ChatTimes times;
  times.sent = now();
  const TimePoint deadline = times.sent + request.response_timeout;
  auto stream = co_await client.open(std::move(request));
  times.done = now();
  if (!stream.ok()) {
    times.error = stream.error().message;
    co_return times;
  }
  times.status = (*stream)->status();
  times.retry_after_s = parse_retry_after((*stream)->headers());
  StreamReader reader(times, on_gap, on_piece);
  for (;;) {
    auto piece = co_await (*stream)->read();
    times.done = now();
    if (!piece.ok()) {
      times.error = piece.error().message;
      co_return times;
    }
    if (piece->empty()) break;
    if (times.status != 200) continue;
    const Status fed = reader.feed(*piece);
    if (!fed.ok()) times.error = fed.error().message;
    if (times.done > deadline) times.error = "time ran out for the answer";
    if (!times.error.empty()) co_return times;
  }
  if (times.status == 200 && !reader.done()) times.error = "the stream ended without [DONE]";
  if (times.status != 200 && times.status != 429 && times.status != 503) {
    times.error = "status " + std::to_string(times.status);
  }
  if (times.tokens == 0) times.tokens = times.pieces;
  co_return times;
}

std::optional<std::string> parse_first_model(std::string_view body) {
  json::error_code failed;
  const json::value parsed = json::parse(body, failed);
  const json::value* data = failed ? nullptr : at(&parsed, "data");
  if (!data || !data->is_array() || data->get_array().empty()) return std::nullopt;
  const json::value* id = at(&data->get_array().front(), "id");
  if (!is_text(id)) return std::nullopt;
  return std::string(id->get_string());
}

std::string chat_body(const std::string& model, const std::string& prompt, int max_tokens, float temperature) {
  json::object message, body;
  message["role"] = "user";
  message["content"] = prompt;
  body["model"] = model;
  body["messages"] = json::array{std::move(message)};
  body["max_tokens"] = max_tokens;
  body["temperature"] = temperature;
  body["stream"] = true;
  body["stream_options"] = json::object{{"include_usage", true}};
  return json::serialize(body);
}

}  // namespace spillway::apps
