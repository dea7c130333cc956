#include "gateway/simulate/simulator.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <unordered_map>

#include "base/check.h"
#include "gateway/policies/prefix_index.h"
#include "gateway/policies/random.h"
#include "gateway/simulate/server_model.h"

namespace spillway::gateway {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr int64_t kBlockTokens = 64;
constexpr double kMeasuringWeight = 0.1;  // of a new observation in a measured speed
constexpr double kProbeAfterS = 1;        // a server that failed is tried again after this

TimePoint at(double seconds_now) { return TimePoint(from_seconds(seconds_now)); }

// A request on its way.
struct Flight {
  std::vector<size_t> candidates;  // servers yet to be tried
  size_t server = 0;
  int attempts = 0;
  double sent_s = 0;
  double first_s = -1;
  int64_t cached_tokens = 0;
  double cached_expected = 0;
  std::vector<uint64_t> blocks;
  bool over = false;
};

struct Server {
  explicit Server(const ServerDescription& description) : model(description), description(description) {}
  ServerModel model;
  const ServerDescription& description;
  double advanced_to = 0;
  double next_report = 0;
  size_t next_down = 0;
  bool down = false;
  double suspected_until = -1;  // the gateway saw it fail
};

bool within(const std::vector<std::pair<double, double>>& windows, double now) {
  return std::any_of(windows.begin(), windows.end(), [&](const auto& w) { return now >= w.first && now < w.second; });
}

class Simulation {
 public:
  Simulation(const std::vector<TraceRequest>& trace, const FleetDescription& fleet, const PolicyUnderTest& policy,
             uint64_t seed)
      : trace_(trace),
        fleet_(fleet),
        chain_(PolicyChain::parse(std::span<const std::string>(policy.policies)).value()),
        seed_(seed),
        flights_(trace.size()) {
    outcome_.policy = policy.name;
    outcome_.requests = static_cast<int64_t>(trace.size());
    for (const ServerDescription& description : fleet.servers) {
      servers_.emplace_back(description);
      UpstreamState state;
      state.info = &description.info;
      states_.push_back(state);
      outcome_.servers.push_back({description.info.name});
    }
  }

  SimulationOutcome run() {
    while (pending_ > 0 || next_arrival_ < trace_.size()) step();
    finish();
    return std::move(outcome_);
  }

 private:
  // The next moment at which anything happens, and what happens then, in a fixed order.
  void step() {
    double next = next_arrival_ < trace_.size() ? trace_[next_arrival_].arrival_s : kNever;
    for (Server& server : servers_) {
      if (const auto in = server.model.next_in()) next = std::min(next, server.advanced_to + *in);
      next = std::min(next, next_fault(server));
      next = std::min(next, server.next_report);
    }
    if (!timeouts_.empty()) next = std::min(next, timeouts_.front().first);
    SW_CHECK(next < kNever, "a simulation with requests pending and nothing to happen");
    now_ = std::max(now_, next);
    for (size_t i = 0; i < servers_.size(); ++i) advance(i);
    for (size_t i = 0; i < servers_.size(); ++i) faults_and_reports(i);
    while (!timeouts_.empty() && timeouts_.front().first <= now_) expire();
    while (next_arrival_ < trace_.size() && trace_[next_arrival_].arrival_s <= now_) arrive(next_arrival_++);
  }

  static double next_fault(const Server& server) {
    const auto& down = server.description.down;
    if (server.next_down >= down.size()) return kNever;
    return server.down ? down[server.next_down].second : down[server.next_down].first;
  }

  void advance(size_t index) {
    Server& server = servers_[index];
    progress_.clear();
    server.model.advance(now_ - server.advanced_to, progress_);
    server.advanced_to = now_;
    for (const auto& progress : progress_) {
      if (progress.what == ServerModel::Progress::kFirstToken) {
        first_token(index, progress.request, progress.cached_tokens);
      } else {
        done(index, progress.request);
      }
    }
  }

  void faults_and_reports(size_t index) {
    Server& server = servers_[index];
    if (next_fault(server) <= now_) {
      if (server.down) ++server.next_down;
      server.down = !server.down;
      if (server.down) crash(index);
    }
    if (server.next_report > now_) return;
    server.next_report = now_ + server.description.report_interval_s;
    if (server.down || within(server.description.silent, now_)) return;
    UpstreamState& state = states_[index];
    state.report = server.model.report(at(now_));
    state.in_flight_at_report = state.in_flight;
    state.prompt_tokens_at_report = state.in_flight_prompt_tokens;
  }

  void crash(size_t index) {
    std::vector<size_t> lost;
    servers_[index].model.crash(lost);
    prefixes_.forget(index);
    servers_[index].suspected_until = now_ + kProbeAfterS;
    std::sort(lost.begin(), lost.end());
    for (const size_t request : lost) {
      leave(index, request);
      try_next(request);
    }
  }

  RequestFeatures features(size_t request) {
    const TraceRequest& facts = trace_[request];
    RequestFeatures features;
    features.tenant = facts.tenant;
    features.prompt_tokens = facts.prompt_tokens;
    features.priority = facts.priority;
    features.seed = mix_bits(seed_ * 0x9e3779b97f4a7c15ull + request);
    features.session = std::to_string(facts.prefix_id);
    features.tokens_per_block = kBlockTokens;
    const auto expected = outputs_.find(facts.tenant);
    if (expected != outputs_.end()) features.output_tokens_expected = static_cast<int64_t>(expected->second) + 1;
    uint64_t hash = mix_bits(static_cast<uint64_t>(facts.prefix_id) + 1);
    const int64_t shared = facts.prefix_id < 0 ? 0 : facts.prefix_tokens / kBlockTokens;
    for (int64_t block = 0; block < facts.prompt_tokens / kBlockTokens; ++block) {
      if (block >= shared) hash += request + 1;
      features.prefix_blocks.push_back(hash = mix_bits(hash + 0x9e3779b97f4a7c15ull));
    }
    return features;
  }

  void arrive(size_t request) {
    ++pending_;
    for (size_t i = 0; i < states_.size(); ++i) {
      // The gateway learns of a failure by failing, and of a recovery by probing.
      if (servers_[i].suspected_until >= 0 && now_ >= servers_[i].suspected_until)
        servers_[i].suspected_until = servers_[i].down ? now_ + kProbeAfterS : -1;
      states_[i].health = servers_[i].suspected_until >= 0 ? Health::kDown : Health::kHealthy;
    }
    Flight& flight = flights_[request];
    RequestFeatures facts = features(request);
    const Decision decision = chain_.decide(facts, states_, at(now_), &prefixes_);
    for (const Candidate& candidate : decision.order) flight.candidates.push_back(candidate.upstream);
    if (!decision.order.empty()) flight.cached_expected = decision.order[0].cached_tokens;
    flight.blocks = std::move(facts.prefix_blocks);
    std::reverse(flight.candidates.begin(), flight.candidates.end());
    timeouts_.emplace_back(now_ + fleet_.timeout_s, request);
    try_next(request);
  }

  void try_next(size_t request) {
    Flight& flight = flights_[request];
    while (!flight.candidates.empty() && flight.attempts < fleet_.attempts_max) {
      const size_t index = flight.candidates.back();
      flight.candidates.pop_back();
      if (flight.attempts++ > 0) {
        ++outcome_.retried;
        flight.cached_expected = 0;
      }
      if (servers_[index].down) {
        servers_[index].suspected_until = now_ + kProbeAfterS;
        continue;
      }
      if (!servers_[index].model.submit(request, trace_[request])) continue;
      flight.server = index;
      flight.sent_s = now_;
      flight.first_s = -1;
      ++states_[index].in_flight;
      states_[index].in_flight_prompt_tokens += trace_[request].prompt_tokens;
      prefixes_.record(index, flight.blocks, at(now_));
      return;
    }
    end(request);
    ++outcome_.refused;
  }

  void end(size_t request) {
    flights_[request].over = true;
    flights_[request].blocks = {};
    --pending_;
  }

  // The gateway's books when a request leaves a server.
  void leave(size_t index, size_t request) {
    --states_[index].in_flight;
    if (flights_[request].first_s < 0) states_[index].in_flight_prompt_tokens -= trace_[request].prompt_tokens;
  }

  static void measure(double& speed, double observed) {
    speed = speed <= 0 ? observed : (1 - kMeasuringWeight) * speed + kMeasuringWeight * observed;
  }

  void first_token(size_t index, size_t request, int64_t cached_tokens) {
    Flight& flight = flights_[request];
    const TraceRequest& facts = trace_[request];
    flight.first_s = now_;
    flight.cached_tokens = cached_tokens;
    UpstreamState& state = states_[index];
    state.in_flight_prompt_tokens -= facts.prompt_tokens;
    prefixes_.observe(index, flight.cached_expected, static_cast<double>(cached_tokens));
    // Only prompts that did not wait tell how fast prompts are computed.
    if (state.in_flight == 1 && facts.prompt_tokens - cached_tokens >= kBlockTokens)
      measure(state.rate.prefill_tokens_per_s,
              static_cast<double>(facts.prompt_tokens - cached_tokens) / std::max(1e-6, now_ - flight.sent_s));
  }

  void done(size_t index, size_t request) {
    Flight& flight = flights_[request];
    const TraceRequest& facts = trace_[request];
    UpstreamState& state = states_[index];
    if (facts.output_tokens > 1)
      measure(state.rate.decode_tokens_per_s,
              static_cast<double>(facts.output_tokens - 1) / std::max(1e-6, now_ - flight.first_s));
    double& expected = outputs_.try_emplace(facts.tenant, static_cast<double>(facts.output_tokens)).first->second;
    measure(expected, static_cast<double>(facts.output_tokens));
    leave(index, request);
    const double round_trip = state.info->round_trip_s;
    latencies_.push_back(now_ - facts.arrival_s + round_trip);
    firsts_.push_back(flight.first_s - facts.arrival_s + round_trip);
    ServerOutcome& server = outcome_.servers[index];
    ++server.answered;
    server.prompt_tokens += facts.prompt_tokens;
    server.cached_tokens += flight.cached_tokens;
    server.output_tokens += facts.output_tokens;
    end(request);
    last_answer_s_ = now_;
  }

  void expire() {
    const size_t request = timeouts_.front().second;
    timeouts_.pop_front();
    Flight& flight = flights_[request];
    // What runs may end; what waits has lost its client.
    if (flight.over || flight.first_s >= 0 || !servers_[flight.server].model.withdraw(request)) return;
    leave(flight.server, request);
    end(request);
    ++outcome_.timed_out;
  }

  void finish() {
    outcome_.answered = static_cast<int64_t>(latencies_.size());
    outcome_.latency_s = quantiles(std::move(latencies_));
    outcome_.first_token_s = quantiles(std::move(firsts_));
    outcome_.duration_s = last_answer_s_ - trace_.front().arrival_s;
    double prompt = 0, cached = 0;
    for (size_t i = 0; i < servers_.size(); ++i) {
      ServerOutcome& server = outcome_.servers[i];
      const Price& price = servers_[i].description.info.price;
      server.usd_tokens = (static_cast<double>(server.prompt_tokens - server.cached_tokens) * price.input +
                           static_cast<double>(server.cached_tokens) * price.cached_input +
                           static_cast<double>(server.output_tokens) * price.output) *
                          1e-6;
      if (server.answered > 0) server.usd_hours = servers_[i].description.usd_per_hour * outcome_.duration_s / 3600;
      outcome_.usd += server.usd_tokens + server.usd_hours;
      prompt += static_cast<double>(server.prompt_tokens);
      cached += static_cast<double>(server.cached_tokens);
    }
    outcome_.cache_hit = prompt > 0 ? cached / prompt : 0;
  }

  const std::vector<TraceRequest>& trace_;
  const FleetDescription& fleet_;
  const PolicyChain chain_;
  const uint64_t seed_;
  double now_ = 0;
  double last_answer_s_ = 0;
  size_t next_arrival_ = 0;
  int64_t pending_ = 0;
  std::deque<Server> servers_;
  std::vector<UpstreamState> states_;
  std::vector<Flight> flights_;
  std::deque<std::pair<double, size_t>> timeouts_;
  std::unordered_map<std::string, double> outputs_;  // expected output by tenant
  PrefixIndex prefixes_;
  std::vector<ServerModel::Progress> progress_;
  std::vector<double> latencies_, firsts_;
  SimulationOutcome outcome_;
};

}  // namespace

Quantiles quantiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += value;
  const auto nearest_rank = [&](double q) {
    return values[std::min(values.size() - 1, static_cast<size_t>(q * static_cast<double>(values.size())))];
  };
  return {sum / static_cast<double>(values.size()), nearest_rank(0.5), nearest_rank(0.95), nearest_rank(0.99)};
}

SimulationOutcome simulate(const std::vector<TraceRequest>& trace, const FleetDescription& fleet,
                           const PolicyUnderTest& policy, uint64_t seed) {
  return Simulation(trace, fleet, policy, seed).run();
}

}  // namespace spillway::gateway
