// What a routing decision costs: scanning a prompt of 100,000 tokens, matching it in a full prefix index, deciding
// among 100 upstreams and recording the choice. Floor: 1,000 requests a second on one core is 1,000 us each.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <deque>
#include <string>
#include <vector>

#include "gateway/policies/prefix_index.h"
#include "gateway/policies/prompt_scan.h"

namespace spillway::gateway {
namespace {

constexpr double kFloorUs = 1000;

struct Fixture {
  std::deque<UpstreamInfo> infos;
  std::vector<UpstreamState> states;
  PrefixIndex index;

  Fixture() {
    const TimePoint now = std::chrono::steady_clock::now();
    for (int i = 0; i < 100; ++i) {
      UpstreamInfo& info = infos.emplace_back();
      info.name = "upstream-" + std::to_string(i);
      info.tier = i < 80 ? Tier::kEdge : i < 95 ? Tier::kCentre : Tier::kProvider;
      info.models = {"deepseek-r1", "deepseek-chat", "qwen3-8b"};
      info.price = {0.1 * (i % 7 + 1), 0.3, 0.02};
      info.reports_load = i < 95;
      UpstreamState state;
      state.info = &info;
      state.in_flight = i % 13;
      state.rate = {4000.0 + 50 * i, 30.0 + i % 11};
      state.report = LoadReport{now, i % 13, i % 3, 100 * (i % 5), 0.01 * (i % 9), 0.5};
      states.push_back(state);
    }
  }
};

std::string prompt(int number, bool chinese) {
  std::string text = "System prompt shared by everyone. ";
  const std::string line =
      chinese ? "请根据以下材料回答问题，并说明理由。" : "the contract of the year 2026 says in its section ";
  while (text.size() < (chinese ? 500'000u : 333'000u)) text += line + std::to_string(number % 50) + " ";
  return text;
}

// Of this thread: other programs on the machine do not count.
double cpu_us() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) * 1e6 + double(time.tv_nsec) * 1e-3;
}

void measure(const char* name, const PolicyChain& chain, const std::vector<std::string>& prompts) {
  Fixture fixture;
  constexpr int kRequests = 2000;
  std::vector<double> times;
  int64_t tokens = 0;
  size_t chosen = 0;
  for (int i = 0; i < kRequests; ++i) {
    const std::string& text = prompts[static_cast<size_t>(i) % prompts.size()];
    const TimePoint begin = std::chrono::steady_clock::now();
    const double cpu = cpu_us();
    RequestFeatures request;
    request.model = "deepseek-r1";
    request.seed = static_cast<uint64_t>(i);
    PromptScan scan(prefix_salt(request.model));
    scan.add("user", text);
    scan.finish(request);
    const Decision decision = chain.decide(request, fixture.states, begin, &fixture.index);
    fixture.index.record(decision.order[0].upstream, request.prefix_blocks, begin);
    times.push_back(cpu_us() - cpu);
    tokens += request.prompt_tokens;
    chosen += decision.order[0].upstream;
  }
  std::sort(times.begin(), times.end());
  double sum = 0;
  for (const double time : times) sum += time;
  const double mean = sum / kRequests;
  fmt::print("| {:<34} | {:>7.0f} | {:>6.1f} | {:>6.1f} | {:>6.1f} | {:>6.0f} | {:>5.2f} |\n", name,
             double(tokens) / kRequests, mean, times[kRequests / 2], times[kRequests * 99 / 100], 1e6 / mean,
             mean / kFloorUs);
  if (chosen == 0) fmt::print("every request went to the first upstream\n");
}

}  // namespace
}  // namespace spillway::gateway

int main() {
  using namespace spillway::gateway;
  const std::vector<std::string> full = {"rule language=zh prefer=provider", "cost_ceiling factor_max=8",
                                         "edge_first text_tokens_max=200000", "prefix_affinity",
                                         "least_predicted choices=2"};
  const PolicyChain chain = PolicyChain::parse(full).value();
  const PolicyChain weighted = PolicyChain::parse(std::vector<std::string>{"weighted"}).value();
  std::vector<std::string> english, chinese, little;
  for (int i = 0; i < 50; ++i) {
    english.push_back(prompt(i, false));
    chinese.push_back(prompt(i, true));
    little.push_back(prompt(i, false).substr(0, 1024));
  }
  fmt::print("100 upstreams, one core\n| {:<34} | {:>7} | {:>6} | {:>6} | {:>6} | {:>6} | {:>5} |\n", "work", "tokens",
             "mean us", "p50", "p99", "per s", "core per 1,000/s");
  measure("five policies, 100k tokens, English", chain, english);
  measure("five policies, 100k tokens, Chinese", chain, chinese);
  measure("five policies, 1 KiB prompt", chain, little);
  measure("weighted, 1 KiB prompt", weighted, little);
}
