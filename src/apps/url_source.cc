#include <fmt/format.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json.hpp>
#include <cstdlib>

#include "apps/chat_source.h"
#include "net/http_client.h"
#include "net/sse.h"

namespace spillway::apps {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr auto kPollInterval = std::chrono::milliseconds(100);

std::string string_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : std::string();
}

const json::object* object_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value ? value->if_object() : nullptr;
}

int int_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_int64() ? int(value->get_int64()) : 0;
}

// The server's own words where it gives them.
Error refusal(const std::string& url, int status, const std::string& body) {
  std::error_code error;
  const json::value value = json::parse(body, error);
  std::string message;
  if (!error && value.is_object()) {
    if (const auto* inner = object_at(value.get_object(), "error")) message = string_at(*inner, "message");
  }
  const ErrorCode code = status == 401                    ? ErrorCode::kUnauthenticated
                         : status == 404                  ? ErrorCode::kNotFound
                         : status == 429 || status == 503 ? ErrorCode::kUnavailable
                                                          : ErrorCode::kInvalidArgument;
  return {code, fmt::format("{} answered {}{}{}", url, status, message.empty() ? "" : ": ", message)};
}

std::string request_body(const std::string& model, const std::vector<ChatTurn>& turns, const AskOptions& options) {
  json::object body{{"model", model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  json::array messages;
  for (const auto& turn : turns) messages.push_back({{"role", turn.role}, {"content", turn.content}});
  body["messages"] = std::move(messages);
  if (options.temperature) body["temperature"] = *options.temperature;
  if (options.top_p) body["top_p"] = *options.top_p;
  if (options.seed) body["seed"] = *options.seed;
  if (options.max_tokens) body["max_tokens"] = *options.max_tokens;
  return json::serialize(body);
}

// Reads one stream of chat chunks into an answer.
class Reader {
 public:
  explicit Reader(const OnText& on_text) : on_text_(on_text) {}

  Status feed(std::string_view bytes) {
    return parser_.feed(bytes, [this](const net::SseEvent& event) {
      if (!event.is_comment) take(event.data);
    });
  }

  bool wanted() const { return wanted_; }
  bool complete() const { return complete_; }
  const std::string& error() const { return error_; }
  Answer answer;

  void idle() { wanted_ = wanted_ && on_text_(false, ""); }

 private:
  void take(const std::string& data) {
    if (data == "[DONE]") {
      complete_ = true;
      return;
    }
    std::error_code error;
    const json::value value = json::parse(data, error);
    if (error || !value.is_object()) {
      error_ = "expected a JSON object in the stream";
      return;
    }
    const json::object& chunk = value.get_object();
    if (const auto* failure = object_at(chunk, "error")) error_ = string_at(*failure, "message");
    if (const auto* usage = object_at(chunk, "usage")) take_usage(*usage);
    const json::value* choices = chunk.if_contains("choices");
    if (!choices || !choices->is_array() || choices->get_array().empty() || !choices->get_array()[0].is_object())
      return;
    const json::object& choice = choices->get_array()[0].get_object();
    if (const std::string finish = string_at(choice, "finish_reason"); !finish.empty()) answer.finish_reason = finish;
    const auto* delta = object_at(choice, "delta");
    if (!delta) return;
    take_text(true, string_at(*delta, "reasoning_content"), answer.reasoning);
    take_text(false, string_at(*delta, "content"), answer.content);
  }

  void take_text(bool reasoning, const std::string& text, std::string& whole) {
    if (text.empty()) return;
    whole += text;
    wanted_ = wanted_ && on_text_(reasoning, text);
  }

  void take_usage(const json::object& usage) {
    answer.usage.prompt_tokens = int_at(usage, "prompt_tokens");
    answer.usage.completion_tokens = int_at(usage, "completion_tokens");
    answer.usage.cached_tokens = int_at(usage, "prompt_cache_hit_tokens");
    const auto* details = object_at(usage, "completion_tokens_details");
    if (details) answer.usage.reasoning_tokens = int_at(*details, "reasoning_tokens");
  }

  const OnText& on_text_;
  net::SseParser parser_;
  bool wanted_ = true;
  bool complete_ = false;
  std::string error_;
};

class UrlSource : public ChatSource {
 public:
  UrlSource(net::Url base, std::string key, net::ClientOptions client)
      : base_(std::move(base)), key_(std::move(key)), client_(std::move(client)) {}

  std::string name() const override { return model_; }

  Status choose_model(const std::string& wanted) {
    net::ClientRequest request = make_request("GET", "/models");
    SW_ASSIGN(const net::ClientResponse response, net::fetch_blocking(std::move(request), client_));
    if (response.status != 200) return refusal(base_.origin(), response.status, response.body);
    std::error_code error;
    const json::value value = json::parse(response.body, error);
    const json::value* data = !error && value.is_object() ? value.get_object().if_contains("data") : nullptr;
    if (!data || !data->is_array()) return corrupt(base_.origin() + ": expected a list of models");
    model_ = wanted;
    if (!model_.empty()) return {};
    if (data->get_array().empty()) return not_found(base_.origin() + " lists no models");
    if (const auto* first = data->get_array()[0].if_object()) model_ = string_at(*first, "id");
    return {};
  }

  Result<Answer> ask(const std::vector<ChatTurn>& turns, const AskOptions& options, const OnText& on_text) override {
    asio::io_context io;
    SW_ASSIGN(const std::unique_ptr<net::HttpClient> client, net::HttpClient::create(io.get_executor(), client_));
    net::ClientRequest request = make_request("POST", "/chat/completions");
    request.headers.add("Content-Type", "application/json");
    request.headers.add("Accept", "text/event-stream");
    request.body = request_body(model_, turns, options);
    Reader reader(on_text);
    std::optional<Status> outcome;
    asio::cancellation_signal stop;
    asio::co_spawn(io, read(*client, std::move(request), reader, outcome),
                   asio::bind_cancellation_slot(stop.slot(), asio::detached));
    while (!outcome && reader.wanted()) {
      io.run_for(kPollInterval);
      reader.idle();
    }
    if (!outcome) {
      stop.emit(asio::cancellation_type::terminal);
      io.run();  // the coroutine ends before what it refers to
    }
    if (!reader.wanted()) {
      if (reader.answer.finish_reason.empty()) reader.answer.finish_reason = "cancelled";
      return std::move(reader.answer);
    }
    SW_TRY(std::move(*outcome));
    return std::move(reader.answer);
  }

 private:
  net::ClientRequest make_request(const char* method, const char* path) const {
    net::ClientRequest request;
    request.method = method;
    request.url = net::join_path(base_, path);
    if (!key_.empty()) request.headers.add("Authorization", "Bearer " + key_);
    return request;
  }

  asio::awaitable<void> read(net::HttpClient& client, net::ClientRequest request, Reader& reader,
                             std::optional<Status>& outcome) {
    outcome = co_await stream(client, std::move(request), reader);
  }

  asio::awaitable<Status> stream(net::HttpClient& client, net::ClientRequest request, Reader& reader) {
    auto opened = co_await client.open(std::move(request));
    if (!opened.ok()) co_return std::move(opened).error();
    net::ClientStream& body = **opened;
    std::string refused;
    while (true) {
      auto piece = co_await body.read();
      if (!piece.ok()) co_return std::move(piece).error();
      if (piece->empty()) break;
      if (body.status() != 200) {
        refused += *piece;
        continue;
      }
      const auto fed = reader.feed(*piece);
      if (!fed.ok()) co_return fed.error();
      if (!reader.error().empty()) co_return Error{ErrorCode::kUnavailable, base_.origin() + ": " + reader.error()};
      if (!reader.wanted()) co_return Status();
    }
    if (body.status() != 200) co_return refusal(base_.origin(), body.status(), refused);
    if (!reader.complete() && reader.answer.finish_reason.empty()) {
      co_return Error{ErrorCode::kUnavailable, base_.origin() + ": the stream was cut before its end"};
    }
    co_return Status();
  }

  net::Url base_;  // up to and with /v1
  std::string key_;
  net::ClientOptions client_;
  std::string model_;
};

}  // namespace

Result<std::unique_ptr<ChatSource>> url_source(const UrlSourceOptions& options) {
  SW_ASSIGN(net::Url base, net::parse_url(options.url));
  if (base.target.empty() || base.target == "/") base.target = "/v1";
  std::string key = options.api_key;
  if (const char* named = std::getenv("OPENAI_API_KEY"); key.empty() && named) key = named;
  net::ClientOptions client;
  client.tls_ca_file = options.tls_ca_file;
  auto source = std::make_unique<UrlSource>(std::move(base), std::move(key), std::move(client));
  SW_TRY(source->choose_model(options.model));
  return std::unique_ptr<ChatSource>(std::move(source));
}

}  // namespace spillway::apps
