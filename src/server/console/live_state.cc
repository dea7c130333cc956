#include "server/console/live_state.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <chrono>

#include "base/trace.h"
#include "engine/live_view.h"
#include "server/console/state_json.h"
#include "server/server.h"

namespace spillway::server {
namespace {

namespace json = boost::json;

constexpr Duration kTick = std::chrono::milliseconds(100);
constexpr Duration kSlowTick = std::chrono::milliseconds(480);
constexpr Duration kSecond = std::chrono::seconds(1);
constexpr Duration kWatchedFor = std::chrono::seconds(3);  // after somebody asked
constexpr int kViewersMax = 32;
constexpr size_t kWindow_s = 10;  // of rates and percentiles
constexpr size_t kRecentShown = 40;
constexpr size_t kRecentJudged = 200;

constexpr const char* kGenerated = "spillway_engine_generated_tokens_total";
constexpr const char* kPrompt = "spillway_engine_prompt_tokens_total";
constexpr const char* kPrefixQueries = "spillway_engine_prefix_cache_query_tokens_total";
constexpr const char* kPrefixHits = "spillway_engine_prefix_cache_hit_tokens_total";
constexpr const char* kRefusals = "spillway_http_refusals_total";

TimePoint now() { return std::chrono::steady_clock::now(); }

double unix_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

LiveState::LiveState(Server& server) : server_(server), started_(now()), second_began_(started_) {
  for (const char* name : {kGenerated, kPrompt, kPrefixQueries, kPrefixHits, kRefusals}) rates_.per_s(name);
  thread_ = std::thread([this] { run(); });
}

LiveState::~LiveState() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void LiveState::run() {
  trace::name_thread("console sampler");
  for (;;) {
    const TimePoint begin = now();
    if (begin - second_began_ >= kSecond) tick_second(begin);
    const bool watched = begin.time_since_epoch().count() < watched_until_ns_.load(std::memory_order_relaxed);
    if (watched) sample(begin);
    if (watched) measure();
    const TimePoint next = watched ? begin + kTick : second_began_ + kSecond;
    std::unique_lock lock(mutex_);
    const auto roused = [&] {
      return stopped_ ||
             (!watched && begin.time_since_epoch().count() < watched_until_ns_.load(std::memory_order_relaxed));
    };
    wake_.wait_until(lock, next, roused);
    if (stopped_) return;
  }
}

void LiveState::tick_second(TimePoint at) {
  const double elapsed = seconds(at - second_began_);
  second_began_ = at;
  requests_.roll();
  first_tokens_.roll();
  rates_.update(at);
  cpu_.update();
  const uint64_t errors = errors_.load(std::memory_order_relaxed);
  errors_per_s_ = 0.8 * errors_per_s_ + 0.2 * double(errors - errors_before_) / elapsed;
  errors_before_ = errors;
  Second second;
  second.requests_per_s = double(requests_.count(1)) / elapsed;
  second.generated_per_s = rates_.per_s(kGenerated);
  second.prompt_per_s = rates_.per_s(kPrompt);
  double pages = 0, used = 0;
  for (const LanguagePtr& model : server_.models()) {
    const engine::EngineState state = model->engine().state();
    second.waiting += state.waiting;
    second.running += state.running;
    pages += state.pages_total;
    used += state.pages_total - state.pages_free - state.pages_cached;
  }
  second.pages_used = pages > 0 ? used / pages : 0;
  std::lock_guard lock(mutex_);
  latest_ = second;
  history_.push_back(second);
  if (history_.size() > LatencyMap::kColumns) history_.pop_front();
}

Signals LiveState::signals() const {
  Signals s;
  s.loading = server_.state() == ServerState::kLoading;
  s.draining = server_.state() == ServerState::kDraining;
  s.stalled = server_.stalled();
  s.device_failed = !server_.device_fault().empty();
  s.bandwidth = bandwidth_;
  s.flops_peak = flops_peak_;
  s.cpu_of_others = std::max(0.0, cpu_.busy() - cpu_.own());
  const double requests = double(requests_.count(kWindow_s)) / double(kWindow_s);
  s.error_share = requests > 0 ? std::min(1.0, errors_per_s_ / requests) : 0;
  for (const LanguagePtr& model : server_.models()) {  // the busiest engine speaks
    const engine::EngineState state = model->engine().state();
    if (s.has_engine && state.running + state.waiting <= s.running + s.waiting) continue;
    s.has_engine = true;
    s.running = state.running;
    s.waiting = state.waiting;
    s.predicted_wait_s = state.predicted_wait_s;
    const auto view = model->engine().live_view();
    if (!view) continue;
    s.blocked = view->blocked;
    s.slots_used = view->sequences_max > 0 ? double(view->running) / view->sequences_max : 0;
    const int used = view->pages_total - view->pages_free - view->pages_cached;
    s.pages_used = view->pages_total > 0 ? double(used) / view->pages_total : 0;
    s.step_s = view->step_s_mean;
    s.rows = view->rows_mean;
    const int rows = view->last.decode_rows + view->last.prefill_tokens;
    s.prefill_share = rows > 0 ? double(view->last.prefill_tokens) / rows : 0;
    s.step_bytes = view->weight_bytes + view->cache_bytes;
    s.step_flops = view->flops;
  }
  if (server_.options().upstreams) {
    for (const UpstreamView& upstream : server_.options().upstreams()) {
      ++s.upstreams;
      s.upstreams_down += upstream.health == "down";
    }
  }
  s.time = slow_.time;
  return s;
}

// The roofline's first half, while it disturbs nobody.
void LiveState::measure() {
  const auto& how = server_.options().measure_bandwidth;
  if (bandwidth_ > 0 || !how || server_.state() != ServerState::kReady || server_.requests_in_flight() > 0) return;
  bandwidth_ = how();
}

void LiveState::sample(TimePoint at) {
  auto text = std::make_shared<const std::string>(make_json(at));
  std::lock_guard lock(mutex_);
  frame_ = {frame_.number + 1, std::move(text)};
}

void LiveState::refresh_slow(TimePoint at) {
  if (at - slow_.at < kSlowTick) return;
  slow_.at = at;
  slow_.time = time_shares(server_.timelines().recent(kRecentJudged), at - kWindow_s * kSecond);
  slow_.recent.clear();
  for (const auto& timeline : server_.timelines().recent(kRecentShown))
    slow_.recent.push_back(request_line(*timeline, at));
  slow_.hardware = layer_readings(metrics::Layer::kHardware);
  slow_.business = layer_readings(metrics::Layer::kBusiness);
}

std::string LiveState::make_json(TimePoint at) {
  refresh_slow(at);
  const Signals s = signals();
  if (s.step_s > 0) flops_peak_ = std::max(flops_peak_, s.step_flops / s.step_s);
  json::array models, one_shot, upstreams;
  for (const OneShotPtr& model : server_.catalogue()->ready()) one_shot.push_back(one_shot_json(*model));
  for (const LanguagePtr& model : server_.models()) models.push_back(model_json(*model));
  if (server_.options().upstreams) {
    for (const UpstreamView& upstream : server_.options().upstreams()) upstreams.push_back(upstream_json(upstream));
  }
  const auto columns = requests_.newest(1);
  const double queried = rates_.per_s(kPrefixQueries);
  json::object out{{"at", unix_now()},
                   {"uptime_s", seconds(at - started_)},
                   {"status", server_.status()},
                   {"requests",
                    {{"in_flight", server_.requests_in_flight()},
                     {"per_s", double(requests_.count(kWindow_s)) / double(kWindow_s)},
                     {"errors_per_s", errors_per_s_},
                     {"refusals_per_s", rates_.per_s(kRefusals)},
                     {"p50_s", requests_.quantile(0.5, kWindow_s)},
                     {"p95_s", requests_.quantile(0.95, kWindow_s)},
                     {"p99_s", requests_.quantile(0.99, kWindow_s)},
                     {"first_p50_s", first_tokens_.quantile(0.5, kWindow_s)},
                     {"first_p99_s", first_tokens_.quantile(0.99, kWindow_s)}}},
                   {"tokens",
                    {{"generated_per_s", rates_.per_s(kGenerated)},
                     {"prompt_per_s", rates_.per_s(kPrompt)},
                     {"cache_hits", queried > 0 ? rates_.per_s(kPrefixHits) / queried : 0}}},
                   {"host", {{"cpu_busy", cpu_.busy()}, {"cpu_own", cpu_.own()}, {"processors", cpu_.processors()}}},
                   {"verdict", verdict_json(judge(s), s)},
                   {"models", std::move(models)},
                   {"one_shot", std::move(one_shot)},
                   {"upstreams", std::move(upstreams)},
                   {"recent", slow_.recent},
                   {"hardware", slow_.hardware},
                   {"business", slow_.business},
                   {"second",
                    {{"number", requests_.columns()},
                     {"column", columns.empty() ? json::array() : column_json(columns.back())},
                     {"waiting", latest_.waiting},
                     {"running", latest_.running},
                     {"requests_per_s", latest_.requests_per_s},
                     {"generated_per_s", latest_.generated_per_s},
                     {"prompt_per_s", latest_.prompt_per_s},
                     {"pages_used", latest_.pages_used}}}};
  return json::serialize(out);
}

LiveState::Frame LiveState::frame() {
  const TimePoint at = now();
  const int64_t until = (at + kWatchedFor).time_since_epoch().count();
  const bool slept = watched_until_ns_.exchange(until, std::memory_order_relaxed) < at.time_since_epoch().count();
  std::unique_lock lock(mutex_);
  if (slept) wake_.notify_all();
  return frame_;
}

std::string LiveState::whole() {
  const Frame newest = frame();
  json::array columns, seconds_json, bounds;
  for (const auto& column : requests_.newest(LatencyMap::kColumns)) columns.push_back(column_json(column));
  for (int i = 0; i < LatencyMap::kBuckets; ++i) bounds.push_back(LatencyMap::bound(i));
  {
    std::lock_guard lock(mutex_);
    for (const Second& second : history_) {
      seconds_json.push_back(json::object{{"requests_per_s", second.requests_per_s},
                                          {"generated_per_s", second.generated_per_s},
                                          {"prompt_per_s", second.prompt_per_s},
                                          {"waiting", second.waiting},
                                          {"running", second.running},
                                          {"pages_used", second.pages_used}});
    }
  }
  json::object history{{"columns", std::move(columns)},
                       {"seconds", std::move(seconds_json)},
                       {"bounds", std::move(bounds)},
                       {"number", requests_.columns()}};
  std::string out = R"({"frame":)";
  out += newest.json ? *newest.json : "null";
  out += R"(,"history":)" + json::serialize(history);
  const std::string& configuration = server_.options().configuration;
  out += R"(,"configuration":)" + (configuration.empty() ? std::string("[]") : configuration) + "}";
  return out;
}

bool LiveState::enter() {
  if (viewers_.fetch_add(1) < kViewersMax) return true;
  --viewers_;
  return false;
}

}  // namespace spillway::server
