#include "gateway/prober.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "gateway/cached_prefixes.h"
#include "gateway/json_cursor.h"
#include "gateway/source.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

metrics::Counter probes_total{
    "spillway_gateway_probes_total", "Health probes by upstream and result.", {"upstream", "result"}};

constexpr int kUnwellProbes = 3;  // that must be missed before what it last said of itself is forgotten
constexpr Duration kProbeTimeout = std::chrono::seconds(3);
constexpr size_t kAnswerBytesMax = 1 << 20;
constexpr Duration kPrefixInterval = std::chrono::seconds(1);
constexpr Duration kPrefixIntervalUnknown = std::chrono::seconds(5);  // of who is away, or knows no such path

TimePoint now() { return std::chrono::steady_clock::now(); }

std::string health_path(const UpstreamOptions& options) {
  if (options.kind == UpstreamKind::kLocal || options.health_path == "-") return "";
  if (!options.health_path.empty()) return options.health_path;
  return options.kind == UpstreamKind::kSpillway ? "/health" : "";
}

struct Fetched {
  int status = 0;                   // 0: no answer in time
  std::optional<std::string> body;  // of a 200
};

asio::awaitable<Fetched> fetch(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream, std::string path) {
  const TimePoint until = now() + kProbeTimeout;
  OutgoingRequest request;
  request.method = "GET";
  request.path = std::move(path);
  request.headers.add("User-Agent", "spillway");
  const auto& keys = upstream->options().keys;
  if (!keys.empty()) request.headers.add("Authorization", "Bearer " + keys.front());
  auto tls = upstream->tls();
  if (!tls.ok()) co_return Fetched();
  const auto source = remote_source(lane, upstream, std::move(tls).value(), std::move(request), kAnswerBytesMax);
  const Status head = co_await source->open(until, until);
  if (!head.ok()) co_return Fetched();
  Fetched fetched;
  fetched.status = source->status();
  bool good = fetched.status == 200;
  std::string body;
  for (;;) {
    auto piece = co_await source->read(until);
    good = good && piece.ok();
    if (!piece.ok() || piece->empty()) break;
    body.append(*piece);
  }
  if (good) fetched.body = std::move(body);
  co_return fetched;
}

double number_at(JsonCursor& cursor) {
  const std::string text(cursor.value());
  return std::strtod(text.c_str(), nullptr);
}

void add_model(JsonCursor& cursor, LoadReport& report) {
  std::string_view key;
  double total = 0, free = 0, cached = 0;
  while (cursor.next_member(key)) {
    if (key == "running")
      report.running += int(number_at(cursor));
    else if (key == "waiting")
      report.waiting += int(number_at(cursor));
    else if (key == "waiting_tokens")
      report.waiting_tokens += int64_t(number_at(cursor));
    else if (key == "predicted_wait_s")
      report.predicted_wait_s = std::max(report.predicted_wait_s, number_at(cursor));
    else if (key == "pages_total")
      total = number_at(cursor);
    else if (key == "pages_free")
      free = number_at(cursor);
    else if (key == "pages_cached")
      cached = number_at(cursor);
    else
      cursor.skip();
  }
  if (total > 0) report.memory_used = std::max(report.memory_used, std::clamp(1 - (free + cached) / total, 0.0, 1.0));
}

}  // namespace

std::optional<LoadReport> parse_load_report(std::string_view body) {
  JsonCursor cursor(body);
  if (!cursor.enter_object()) return std::nullopt;
  LoadReport report;
  bool models = false;
  std::string_view key;
  while (cursor.next_member(key)) {
    if (key != "models" || !cursor.enter_array()) {
      cursor.skip();
      continue;
    }
    models = true;
    while (cursor.next_element()) {
      if (cursor.enter_object())
        add_model(cursor, report);
      else
        cursor.skip();
    }
  }
  if (!cursor.finished() || !models) return std::nullopt;
  return report;
}

std::unique_ptr<Prober> Prober::start(const std::vector<std::shared_ptr<Upstream>>& upstreams,
                                      std::shared_ptr<PrefixIndex> prefixes) {
  std::unique_ptr<Prober> prober;
  for (size_t i = 0; i < upstreams.size(); ++i) {
    const auto& upstream = upstreams[i];
    std::string path = health_path(upstream->options());
    if (path.empty()) continue;
    if (!prober) prober.reset(new Prober);
    asio::co_spawn(prober->context_, watch(prober->lane_, upstream, std::move(path)), asio::detached);
    if (upstream->options().kind != UpstreamKind::kSpillway) continue;
    asio::co_spawn(prober->context_, watch_prefixes(prober->lane_, upstream, prefixes, i), asio::detached);
  }
  if (prober) prober->thread_ = std::thread([context = &prober->context_] { context->run(); });
  return prober;
}

Prober::~Prober() {
  context_.stop();
  thread_.join();
}

asio::awaitable<void> Prober::watch(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream, std::string path) {
  const auto signal = std::make_shared<net::Signal>(lane->executor());
  for (;;) {
    const TimePoint began = now();
    const Fetched fetched = co_await fetch(lane, upstream, path);
    const std::optional<std::string>& body = fetched.body;
    upstream->probed(now(), body.has_value());
    const bool own = upstream->options().kind == UpstreamKind::kSpillway;
    // It may still answer: a node whose device is lost, that makes no progress or that leaves says so before it fails.
    if (own && fetched.status == 503) upstream->unwell(now() + kUnwellProbes * upstream->options().health_interval);
    if (body && own) {
      if (const auto report = parse_load_report(*body)) upstream->reported(now(), *report);
    }
    probes_total.with({upstream->name(), body ? "ok" : "failed"}).add();
    co_await signal->wait_until(
        std::max(now() + std::chrono::milliseconds(10), began + upstream->options().health_interval));
  }
}

asio::awaitable<void> Prober::watch_prefixes(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream,
                                             std::shared_ptr<PrefixIndex> prefixes, size_t index) {
  const auto signal = std::make_shared<net::Signal>(lane->executor());
  PrefixReports reports(*prefixes, index);
  for (;;) {
    const TimePoint began = now();
    std::string path = kCachedPrefixesPath;
    const Fetched fetched = co_await fetch(lane, upstream, std::move(path));
    const std::optional<std::string>& body = fetched.body;
    auto told = body ? parse_cached_prefixes(*body) : std::nullopt;
    const bool known = told.has_value();
    if (known) reports.take(std::move(*told), now());
    co_await signal->wait_until(began + (known ? kPrefixInterval : kPrefixIntervalUnknown));
  }
}

}  // namespace spillway::gateway
