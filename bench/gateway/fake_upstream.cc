// fake_upstream: a provider that is a program of its own, for tests and measurements of the gateway. Speaks OpenAI's
// chat API; what goes wrong is chosen by the model's name ("cut", "503", "silent", ...), or by a seeded schedule with
// --fault-share. Prints its port, then serves until it is killed. GET /stats tells what it saw.
// --slots N: computes N requests at a time, each for --work-us; others wait, and past --queue of them are refused
// (503). GET /last shows the request that came last; after GET /unwell (until /well) /health says 503, as a
// Spillway that has lost its GPU does, while requests are still answered.
//   fake_upstream [--port N] [--name NAME] [--healthy] [--tokens N] [--token-us N] [--fault-share P --seed S]
//   [--threads N]
//                 [--slots N --work-us N --queue N]
#include <fmt/format.h>

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <string>

#include "fake_answers.h"
#include "net/http_server.h"
#include "net/sse.h"

namespace spillway::net {
namespace {

using std::chrono::milliseconds;

struct Options {
  uint16_t port = 0;
  std::string name = "fake";
  bool healthy = false;  // every fault's name is just a model
  int tokens = 20;
  int token_us = 0;
  double fault_share = 0;
  uint64_t seed = 1;
  int threads = 1;
  int slots = 0;  // 0: any number
  int work_us = 0;
  int queue = 1 << 30;
};

constexpr const char* kFaults[] = {"503", "500", "429", "reset", "blank", "garbage", "truncated", "cut", "error200"};

class Fake {
 public:
  explicit Fake(Options options) : options_(std::move(options)), random_(options_.seed) {}

  asio::awaitable<void> answer(HttpRequest request, ResponseWriter& writer) {
    if (request.path == "/stats") {
      std::string body = stats();
      co_await send(writer, 200, std::move(body));
      co_return;
    }
    if (request.path == "/last") {
      std::string body = last();
      co_await send(writer, 200, std::move(body));
      co_return;
    }
    if (request.path == "/unwell" || request.path == "/well") unwell_ = request.path == "/unwell";
    if (request.path == "/health") {  // as a Spillway's
      const bool unwell = unwell_;
      std::string body = unwell ? R"({"status":"stalled"})" : R"({"status":"ready","models":[]})";
      co_await send(writer, unwell ? 503 : 200, std::move(body));
      co_return;
    }
    if (request.method != "POST") {
      co_await send(writer, 200, "{}");
      co_return;
    }
    keep(request);
    ++active_;
    auto left = std::make_shared<std::atomic<bool>>(false);
    writer.on_disconnect([this, left] {
      *left = true;
      ++left_;
    });
    const bool room = co_await take_slot(writer, left);
    if (!room) {
      std::string body = error("too many requests wait", "server_overloaded");
      co_await send(writer, 503, std::move(body));
    } else {
      std::string fault = fault_of(request);
      co_await act(std::move(fault), request, writer, left);
    }
    if (room && options_.slots > 0) --computing_;
    --active_;
  }

 private:
  using Left = std::shared_ptr<std::atomic<bool>>;
  enum class Usage { kWithTheEnd, kAlone, kNone };

  std::string fault_of(const HttpRequest& request) {
    const size_t at = request.body.find("\"model\"");
    const size_t from = at == std::string::npos ? at : request.body.find('"', at + 8);
    const std::string model =
        from == std::string::npos ? "" : request.body.substr(from + 1, request.body.find('"', from + 1) - from - 1);
    std::lock_guard lock(mutex_);
    const int count = ++requests_[model];
    ++total_;
    if (options_.healthy) return "ok";
    if (options_.fault_share > 0) {
      if (std::uniform_real_distribution<double>()(random_) >= options_.fault_share) return "ok";
      return kFaults[random_() % std::size(kFaults)];
    }
    if (model.ends_with("-once")) return count % 2 == 1 ? model.substr(0, model.size() - 5) : "ok";
    if (model == "badkey") {
      return request.headers.value_or("Authorization", "").find("good") != std::string_view::npos ? "ok" : "401";
    }
    return model;
  }

  // A place to compute, and the time that it takes; false when too many wait. Places go to whoever looks first.
  asio::awaitable<bool> take_slot(ResponseWriter& writer, Left left) {
    if (options_.slots == 0) co_return true;
    if (waiting_.load() >= options_.queue) co_return false;
    ++waiting_;
    for (;;) {
      int now = computing_.load();
      if (now < options_.slots && computing_.compare_exchange_strong(now, now + 1)) break;
      co_await pause(writer, milliseconds(1));
      if (*left) break;
    }
    --waiting_;
    if (*left) ++computing_;  // given back as any other
    co_await pause(writer, std::chrono::microseconds(options_.work_us));
    co_return true;
  }

  void keep(const HttpRequest& request) {
    std::lock_guard lock(mutex_);
    last_ = "{\"path\":\"" + request.path + "\",\"headers\":{";
    bool first = true;
    for (const auto& [name, value] : request.headers) {
      if (value.find_first_of("\"\\") != std::string::npos) continue;
      last_ += (first ? "\"" : ",\"") + name + "\":\"" + value + "\"";
      first = false;
    }
    last_ += "},\"body\":" + (request.body.size() < 65536 ? request.body : "null") + "}";
  }
  std::string last() {
    std::lock_guard lock(mutex_);
    return last_.empty() ? "{}" : last_;
  }

  static asio::awaitable<void> send(ResponseWriter& writer, int status, std::string body) {
    Headers headers = Headers::of("Content-Type", "application/json");
    co_await writer.send(status, std::move(headers), std::move(body));
  }

  static asio::awaitable<void> pause(ResponseWriter& writer, Duration time) {
    asio::steady_timer timer(writer.executor(), time);
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }

  static std::string error(std::string_view message, std::string_view code) {
    return fmt::format(R"({{"error":{{"message":"{}","type":"{}","param":null,"code":"{}"}}}})", message, code, code);
  }

  asio::awaitable<void> act(std::string fault, const HttpRequest& request, ResponseWriter& writer, Left left) {
    const bool stream = request.body.find("\"stream\":true") != std::string::npos ||
                        request.body.find("\"stream\": true") != std::string::npos;
    const bool digits = fault.size() == 3 && fault.find_first_not_of("0123456789") == std::string::npos;
    if (digits) {
      std::string body = error("told to fail", fault == "429" ? "rate_limit_exceeded" : "server_error");
      co_await send(writer, std::stoi(fault), std::move(body));
    } else if (fault == "429-after") {
      Headers headers = Headers::of("Content-Type", "application/json", "Retry-After", "1");
      std::string body = error("slow down", "rate_limit_exceeded");
      co_await writer.send(429, std::move(headers), std::move(body));
    } else if (fault == "o-series" && request.body.find("\"max_tokens\"") != std::string::npos) {
      std::string body = error(
          "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
          "'max_completion_tokens' instead.",
          "unsupported_parameter");
      co_await send(writer, 400, std::move(body));
    } else if (fault == "context") {
      std::string body = error("too long", "context_length_exceeded");
      co_await send(writer, 400, std::move(body));
    } else if (fault == "error200") {
      std::string body = error("busy", "server_overloaded");
      co_await send(writer, 200, std::move(body));
    } else if (fault == "blank") {
      co_await send(writer, 200, "");
    } else if (fault == "truncated") {
      co_await send(writer, 200, R"({"id":"x","object":"chat.completion","choices":[{"index":0,"mess)");
    } else if (fault == "reset") {
      // A status line that lies about its length is the nearest to a reset that a server of ours can be made to send.
      Headers headers = Headers::of("Content-Type", "application/json");
      co_await writer.start_stream(200, std::move(headers));
    } else if (request.path.ends_with("/count_tokens")) {
      co_await send(writer, 200, R"({"input_tokens":11})");
    } else if (fault == "silent") {
      while (!*left) co_await pause(writer, milliseconds(20));
    } else if (request.path.ends_with("/messages") || request.path.ends_with("/embeddings") ||
               request.path.ends_with("/rerank") || fault == "tools") {
      if (options_.token_us > 0) co_await pause(writer, std::chrono::microseconds(options_.token_us));
      co_await other(fault, request, writer, stream);
    } else if (!stream) {
      co_await whole(fault, writer, left);
    } else {
      // As vLLM and OpenAI, which tell the usage of a stream in a chunk of its own, to who asks for it.
      const bool asked = request.body.find("\"include_usage\":true") != std::string::npos;
      const Usage usage = fault != "usage" ? Usage::kWithTheEnd : asked ? Usage::kAlone : Usage::kNone;
      co_await events(fault, writer, left, usage);
    }
  }

  asio::awaitable<void> other(std::string fault, const HttpRequest& request, ResponseWriter& writer, bool stream) {
    const bool anthropic = request.path.ends_with("/messages"), tools = fault == "tools";
    std::string body = request.path.ends_with("/embeddings") ? embeddings(options_.name)
                       : request.path.ends_with("/rerank")   ? ranking(options_.name)
                       : anthropic && stream
                           ? anthropic_events(options_.name, tools, options_.tokens, fault == "lead" ? " " : "")
                       : anthropic ? anthropic_whole(options_.name, tools, options_.tokens)
                       : stream    ? openai_tool_events(options_.name)
                                   : openai_tools(options_.name);
    if (fault == "cut") body.resize(body.size() * 2 / 3);
    if (!stream) {
      co_await send(writer, 200, std::move(body));
      co_return;
    }
    Headers headers = Headers::of("Content-Type", "text/event-stream");
    co_await writer.start_stream(200, std::move(headers));
    const bool written = co_await writer.write(body);
    if (written && fault != "cut") co_await writer.end();
  }

  asio::awaitable<void> whole(std::string fault, ResponseWriter& writer, Left left) {
    if (fault == "keepalive") {
      Headers headers = Headers::of("Content-Type", "application/json");
      co_await writer.start_stream(200, std::move(headers));
      while (!*left) {
        co_await writer.write("\n");
        co_await pause(writer, milliseconds(50));
      }
      co_return;
    }
    if (fault == "cut" || fault == "drip") {
      Headers headers = Headers::of("Content-Type", "application/json");
      co_await writer.start_stream(200, std::move(headers));
      co_await writer.write("{\"id\":");
      while (fault == "drip" && !*left) {
        co_await writer.write(" ");
        co_await pause(writer, milliseconds(50));
      }
      co_return;
    }
    std::string text;
    for (int i = 0; i < options_.tokens; ++i) text += fmt::format("t{} ", i);
    if (options_.token_us > 0) co_await pause(writer, std::chrono::microseconds(options_.token_us) * options_.tokens);
    const char* finish = fault == "filter" ? "content_filter" : "stop";
    std::string body = fmt::format(
        R"({{"id":"fake-1","object":"chat.completion","created":1,"model":"{}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"{}"}}],"usage":{{"prompt_tokens":7,"completion_tokens":{},"total_tokens":{}}}}})",
        options_.name, text, finish, options_.tokens, options_.tokens + 7);
    co_await send(writer, 200, std::move(body));
  }

  std::string chunk(std::string_view delta, std::string_view finish = "null", std::string_view usage = "") const {
    std::string out;
    append_sse_event(
        out,
        fmt::format(
            R"({{"id":"fake-1","object":"chat.completion.chunk","created":1,"model":"{}","choices":[{{"index":0,"delta":{},"finish_reason":{}}}]{}}})",
            options_.name, delta, finish, usage));
    return out;
  }

  asio::awaitable<void> events(std::string fault, ResponseWriter& writer, Left left, Usage told) {
    Headers headers = Headers::of("Content-Type", "text/event-stream");
    bool good = co_await writer.start_stream(200, std::move(headers));
    if (fault == "keepalive") {
      while (!*left) {
        co_await writer.write(": keep-alive\n\n");
        co_await pause(writer, milliseconds(50));
      }
      co_return;
    }
    if (fault == "garbage") {
      co_await writer.write("data: {\"id\":\"x\",\"choices\":[{\"ind\n\ndata: %%%\n\n");
      co_await writer.end();
      co_return;
    }
    if (fault == "error-event") {
      std::string event;
      append_sse_event(event, error("told to fail", "server_error"));
      co_await writer.write(event);
      co_await writer.end();
      co_return;
    }
    if (fault == "empty") {
      co_await writer.end();
      co_return;
    }
    std::string head = chunk(R"({"role":"assistant","content":""})");
    good = co_await writer.write(head);
    if (fault == "cut-early") co_return;
    for (int i = 0; good && i < options_.tokens && !*left; ++i) {
      if (options_.token_us > 0) co_await pause(writer, std::chrono::microseconds(options_.token_us));
      if (fault == "cut" && i == options_.tokens * 2 / 3) co_return;
      if (fault == "garbage-late" && i == options_.tokens / 2) co_await writer.write("data: {\"id\": oops\n\n");
      while (fault == "stall" && i == options_.tokens / 2 && !*left) co_await pause(writer, milliseconds(20));
      std::string event = chunk(fmt::format(R"({{"content":"t{} "}})", i));
      good = co_await writer.write(event);
    }
    if (!good || *left) co_return;
    const std::string usage = fmt::format(R"(,"usage":{{"prompt_tokens":7,"completion_tokens":{},"total_tokens":{}}})",
                                          options_.tokens, options_.tokens + 7);
    std::string last =
        chunk("{}", fault == "filter" ? "\"content_filter\"" : "\"stop\"", told == Usage::kWithTheEnd ? usage : "");
    if (told == Usage::kAlone)
      append_sse_event(last,
                       R"({"id":"fake-1","object":"chat.completion.chunk","created":1,"choices":[])" + usage + "}");
    if (fault != "no-done") last += "data: [DONE]\n\n";
    co_await writer.write(last);
    co_await writer.end();
  }

  std::string stats() {
    std::lock_guard lock(mutex_);
    std::string models;
    for (const auto& [model, count] : requests_)
      models += fmt::format("{}\"{}\":{}", models.empty() ? "" : ",", model, count);
    return fmt::format(R"({{"name":"{}","total":{},"left":{},"active":{},"models":{{{}}}}})", options_.name, total_,
                       left_.load(), active_.load(), models);
  }

  const Options options_;
  std::mutex mutex_;
  std::mt19937_64 random_;
  std::map<std::string, int> requests_;
  int64_t total_ = 0;
  std::string last_;
  std::atomic<int64_t> left_{0}, active_{0};
  std::atomic<int> computing_{0}, waiting_{0};
  std::atomic<bool> unwell_{false};
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--healthy") {
      options.healthy = true;
      continue;
    }
    if (i + 1 >= argc) break;
    const char* value = argv[++i];
    if (flag == "--port") options.port = uint16_t(std::atoi(value));
    if (flag == "--name") options.name = value;
    if (flag == "--tokens") options.tokens = std::atoi(value);
    if (flag == "--token-us") options.token_us = std::atoi(value);
    if (flag == "--fault-share") options.fault_share = std::atof(value);
    if (flag == "--seed") options.seed = uint64_t(std::atoll(value));
    if (flag == "--threads") options.threads = std::atoi(value);
    if (flag == "--slots") options.slots = std::atoi(value);
    if (flag == "--work-us") options.work_us = std::atoi(value);
    if (flag == "--queue") options.queue = std::atoi(value);
  }
  return options;
}

}  // namespace
}  // namespace spillway::net

int main(int argc, char** argv) {
  using namespace spillway::net;
  const Options options = parse(argc, argv);
  Fake fake(options);
  HttpServerOptions http;
  http.address = "127.0.0.1";
  http.port = options.port;
  http.io_threads = options.threads;
  http.connections_max = 20000;
  auto server = HttpServer::start(
      http, [&fake](HttpRequest request, ResponseWriter& writer) { return fake.answer(std::move(request), writer); });
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  std::printf("%u\n", unsigned((*server)->port()));
  std::fflush(stdout);
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGTERM);
  sigaddset(&stops, SIGINT);
  int signal = 0;
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);
  sigwait(&stops, &signal);
  return 0;
}
