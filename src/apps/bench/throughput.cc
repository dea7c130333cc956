// bench throughput: many sequences at once, at several concurrencies; the first is what the others are compared with.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <cstdio>

#include "apps/bench/bench.h"
#include "apps/bench/generation.h"
#include "apps/bench/measure.h"
#include "apps/local_model.h"
#include "apps/progress.h"
#include "apps/system.h"
#include "apps/table.h"

namespace spillway::apps {
namespace {

struct Level {
  int concurrency = 0;
  double output_tok_s = 0;  // of all together, prompts' time included
  double ttft_p50 = 0, ttft_p99 = 0;
  double itl_mean = 0;
};

Result<Level> measure(engine::Engine& engine, int concurrency, const ThroughputBench& bench) {
  SW_ASSIGN(const auto runs,
            generate(engine, concurrency, {bench.prompt_tokens, bench.output_tokens, uint64_t(concurrency)}));
  Level level{concurrency, 0, 0, 0, 0};
  std::vector<double> first;
  double longest = 0;
  int64_t tokens = 0;
  for (const auto& run : runs) {
    first.push_back(run.first_token_s);
    longest = std::max(longest, run.last_token_s);
    tokens += run.tokens;
    level.itl_mean += (run.last_token_s - run.first_token_s) / std::max(1, run.tokens - 1) / double(runs.size());
  }
  level.output_tok_s = double(tokens) / longest;
  level.ttft_p50 = percentile(first, 0.5);
  level.ttft_p99 = percentile(first, 0.99);
  return level;
}

void print(const std::vector<Level>& levels, const ThroughputBench& bench, const models::ModelInfo& info) {
  std::printf("%s, %.1f M parameters, %s: prompts of %d, outputs of %d tokens\n\n", info.architecture.c_str(),
              double(info.parameters) / 1e6, info.precision.c_str(), bench.prompt_tokens, bench.output_tokens);
  Table table({"at once", "output tok/s", "times one", "first token p50", "p99", "between tokens"});
  for (const auto& level : levels) {
    table.add({std::to_string(level.concurrency), fmt::format("{:.1f}", level.output_tok_s),
               fmt::format("{:.2f}", level.output_tok_s / levels[0].output_tok_s * levels[0].concurrency),
               fmt::format("{:.1f} ms", level.ttft_p50 * 1e3), fmt::format("{:.1f} ms", level.ttft_p99 * 1e3),
               fmt::format("{:.2f} ms", level.itl_mean * 1e3)});
  }
  std::fputs(table.render().c_str(), stdout);
  std::printf("\npeak resident memory %s\n", format_bytes(peak_resident_bytes()).c_str());
}

void print_json(const std::vector<Level>& levels, const ThroughputBench& bench, const models::ModelInfo& info) {
  boost::json::array rows;
  for (const auto& level : levels) {
    rows.push_back({{"concurrency", level.concurrency},
                    {"output_tokens_per_s", level.output_tok_s},
                    {"ttft_p50_s", level.ttft_p50},
                    {"ttft_p99_s", level.ttft_p99},
                    {"itl_mean_s", level.itl_mean}});
  }
  const boost::json::object all{{"architecture", info.architecture},
                                {"precision", info.precision},
                                {"parameters", info.parameters},
                                {"prompt_tokens", bench.prompt_tokens},
                                {"output_tokens", bench.output_tokens},
                                {"peak_resident_bytes", peak_resident_bytes()},
                                {"levels", rows}};
  std::printf("%s\n", boost::json::serialize(all).c_str());
}

}  // namespace

Status bench_throughput(const ThroughputBench& bench, const config::Config& config) {
  SW_TRY(check_model_options(config));
  if (bench.concurrency.empty()) return invalid("--concurrency: expected at least one number, found none");
  Progress progress("loading", Progress::Unit::kBytes);
  SW_ASSIGN(LocalEngine local,
            load_local_engine(config, [&](int64_t done, int64_t total) { progress.update(done, total); }));
  progress.finish();
  local.wait_settled();
  SW_TRY(generate(*local.engine, 1, {bench.prompt_tokens, 8, 0}));
  std::vector<Level> levels;
  for (const int concurrency : bench.concurrency) {
    SW_ASSIGN(const Level level, measure(*local.engine, concurrency, bench));
    levels.push_back(level);
  }
  bench.as_json ? print_json(levels, bench, local.info) : print(levels, bench, local.info);
  return {};
}

}  // namespace spillway::apps
