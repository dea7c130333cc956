// The console: its page, its files, and what they show.
//   GET  /                             to the page
//   GET  /console                      the page; its files are below it and need no key, for they tell nothing
//   GET  /console/api/state            the live state with history and configuration, JSON
//   GET  /console/api/events           the live state ten times a second, SSE
//   GET  /console/api/requests/ID      what happened to one request
//   POST /console/api/trace?seconds=5  what the threads do meanwhile, as Chrome's trace JSON
// The last four ask for an admin key where there is one, else for an API key where there is one.
#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <charconv>
#include <chrono>

#include "base/trace.h"
#include "net/channel.h"
#include "net/sse.h"
#include "server/console/assets.h"
#include "server/console/live_state.h"
#include "server/console/state_json.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

constexpr Duration kFramePause = std::chrono::milliseconds(100);
constexpr Duration kHeartbeat = std::chrono::seconds(5);
constexpr double kTraceMax_s = 60;

// Nothing but the page's own files and its own server; blobs are pictures that the visitor chose.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

asio::awaitable<void> send_asset(Exchange& exchange, const Asset& asset) {
  const std::string tag = fmt::format("\"{:x}\"", std::hash<std::string_view>()(asset.bytes));
  exchange.set_header("ETag", tag);
  exchange.set_header("Cache-Control", "no-cache");
  exchange.set_header("Content-Security-Policy", kPolicy);
  exchange.set_header("X-Content-Type-Options", "nosniff");
  exchange.set_header("Referrer-Policy", "no-referrer");
  if (exchange.request().headers.value_or("If-None-Match", "") == tag) {
    co_await exchange.send_text(304, "", "");
    co_return;
  }
  std::string body(asset.bytes);
  co_await exchange.send_text(200, asset.content_type, std::move(body));
}

asio::awaitable<void> not_found(Exchange& exchange, std::string what) {
  ApiError error{ErrorKind::kNotFound, std::move(what), "", ""};
  co_await exchange.send_error(std::move(error));
}

// Waits until the moment, or the client leaves.
asio::awaitable<void> pause(net::Signal& left, TimePoint until) { co_await left.wait_until(until); }

struct Viewer {
  explicit Viewer(LiveState& live) : live_(live), entered(live.enter()) {}
  ~Viewer() {
    if (entered) live_.leave();
  }
  Viewer(const Viewer&) = delete;
  LiveState& live_;
  const bool entered;
};

std::optional<double> trace_seconds(const net::HttpRequest& request) {
  const std::string text = request.query_parameter("seconds").value_or("5");
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0 && value <= kTraceMax_s))
    return std::nullopt;
  return value;
}

}  // namespace

asio::awaitable<void> front_page(Exchange& exchange) {
  exchange.set_header("Location", "/console");
  co_await exchange.send_text(307, "", "");
}

asio::awaitable<void> console_page(Exchange& exchange) { return send_asset(exchange, *find_asset("index.html")); }

asio::awaitable<void> console_file(Exchange& exchange) {
  const std::string_view path = exchange.request().path;
  const std::string_view name = path.substr(std::string_view("/console/").size());
  const Asset* asset = find_asset(name.empty() ? "index.html" : name);
  if (asset == nullptr) {
    co_await not_found(exchange, "The console has no such file.");
  } else {
    co_await send_asset(exchange, *asset);
  }
}

asio::awaitable<void> console_state(Exchange& exchange) {
  exchange.set_header("Cache-Control", "no-store");
  std::string body = exchange.server().live().whole();
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> console_events(Exchange& exchange) {
  LiveState& live = exchange.server().live();
  const Viewer viewer(live);
  if (!viewer.entered) {
    ApiError error{ErrorKind::kOverloaded, "Too many consoles are open on this server.", "", "viewers"};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  const bool started = co_await exchange.start_stream(net::kSseContentType);
  if (!started) co_return;
  auto left = std::make_shared<net::Signal>(exchange.writer().executor());
  exchange.writer().on_disconnect([left] { left->notify(); });
  uint64_t shown = 0;
  TimePoint spoke = std::chrono::steady_clock::now();
  while (!exchange.writer().disconnected() && exchange.server().state() != ServerState::kDraining) {
    const TimePoint now = std::chrono::steady_clock::now();
    const LiveState::Frame frame = live.frame();
    std::string out;
    if (frame.json && frame.number != shown) {
      net::append_sse_event(out, *frame.json);
      shown = frame.number;
    } else if (now - spoke > kHeartbeat) {
      net::append_sse_comment(out, "alive");
    }
    if (!out.empty()) {
      spoke = now;
      const bool written = co_await exchange.writer().write(out);
      if (!written) co_return;
    }
    co_await pause(*left, now + kFramePause);
  }
  co_await exchange.writer().end();
}

asio::awaitable<void> console_request(Exchange& exchange) {
  const std::string id = exchange.request().path.substr(std::string_view("/console/api/requests/").size());
  const auto timeline = exchange.server().timelines().find(id);
  if (!timeline) {
    co_await not_found(exchange,
                       "No request of this id among the latest; their ids are in X-Request-Id and in answers.");
    co_return;
  }
  exchange.set_header("Cache-Control", "no-store");
  std::string body = boost::json::serialize(request_json(*timeline, std::chrono::steady_clock::now()));
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> console_trace(Exchange& exchange) {
  const std::optional<double> length = trace_seconds(exchange.request());
  if (!length) {
    ApiError error{ErrorKind::kInvalidFormat,
                   fmt::format("seconds: expected a number over 0, at most {:.0f}.", kTraceMax_s), "seconds", ""};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  if (!trace::start()) {
    ApiError error{ErrorKind::kOverloaded, "Somebody is tracing already.", "", "tracing"};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  auto left = std::make_shared<net::Signal>(exchange.writer().executor());
  exchange.writer().on_disconnect([left] { left->notify(); });
  const TimePoint until = std::chrono::steady_clock::now() + from_seconds(*length);
  co_await pause(*left, until);
  auto text = std::make_shared<std::string>();  // the job may outlive this frame when the server stops
  std::function<void()> job = [text] { *text = trace::stop(); };
  co_await exchange.server().run_aside(std::move(job));
  exchange.set_header("Content-Disposition", "attachment; filename=\"spillway-trace.json\"");
  std::string body = std::move(*text);
  co_await exchange.send_json(200, std::move(body));
}

}  // namespace spillway::server
