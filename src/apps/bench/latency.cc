// bench latency: one sequence at a time; its floor is the time that reading the weights once takes.
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

struct Figures {
  double load_s = 0, start_to_first_token_s = 0;
  double first_token_s = 0, prefill_tok_s = 0, decode_tok_s = 0;
  double bandwidth = 0, floor_tok_s = 0;
  double ratio = 0;  // of decode to its run's floor, the median
  int64_t resident = 0;
  int64_t peak_resident = 0;
  engine::Usage usage;
};

Result<Figures> measure(const LatencyBench& bench, const config::Config& config, LocalEngine& local) {
  Figures figures;
  figures.load_s = local.load_s;
  SW_TRY(generate(*local.engine, 1, {16, 1, 0}));
  figures.start_to_first_token_s = seconds_since_process_start();
  local.wait_settled();
  SW_TRY(generate(*local.engine, 1, {bench.prompt_tokens, 8, 0}));  // the first long prompt touches new memory
  const int threads = compute_threads(int(config.integer("hardware.threads")));
  std::vector<double> first, decode, bandwidth, ratio;
  for (int i = 0; i < bench.repeats; ++i) {
    SW_ASSIGN(const auto runs, generate(*local.engine, 1, {bench.prompt_tokens, bench.output_tokens, uint64_t(i) + 1}));
    first.push_back(runs[0].first_token_s);
    decode.push_back((runs[0].tokens - 1) / (runs[0].last_token_s - runs[0].first_token_s));
    figures.usage.draft_tokens += runs[0].usage.draft_tokens;
    figures.usage.accepted_tokens += runs[0].usage.accepted_tokens;
    if (i == 0) {  // before the bandwidth's own buffers
      figures.resident = resident_bytes();
      figures.peak_resident = peak_resident_bytes();
    }
    // Each run has its own floor: on a shared machine the bandwidth moves from one to the next.
    bandwidth.push_back(memory_bandwidth(threads));
    ratio.push_back(decode.back() * double(local.info.decode_bytes) / bandwidth.back());
  }
  figures.first_token_s = median(first);
  figures.prefill_tok_s = bench.prompt_tokens / figures.first_token_s;
  figures.decode_tok_s = median(decode);
  figures.bandwidth = median(bandwidth);
  figures.ratio = median(ratio);
  figures.floor_tok_s = figures.bandwidth / double(local.info.decode_bytes);
  return figures;
}

// A prompt needs the output head for its last token alone.
double prefill_flops_per_token(const models::ModelInfo& info) {
  return double(info.flops_per_token) - 2.0 * info.vocab_size * info.hidden_size;
}

void print(const LatencyBench& bench, const models::ModelInfo& info, const Figures& f) {
  std::printf("%s, %.1f M parameters, %s: weights %s, read a step %s\n\n", info.architecture.c_str(),
              double(info.parameters) / 1e6, info.precision.c_str(), format_bytes(info.weight_bytes).c_str(),
              format_bytes(info.decode_bytes).c_str());
  Table table({"", "measured", "floor", "ratio"});
  table.add({fmt::format("prefill of {}", bench.prompt_tokens),
             fmt::format("{:.1f} tok/s, {:.0f} GFLOP/s", f.prefill_tok_s,
                         f.prefill_tok_s * prefill_flops_per_token(info) / 1e9),
             "", ""});
  table.add({"first token", fmt::format("{:.1f} ms", f.first_token_s * 1e3), "", ""});
  table.add({fmt::format("decode of {}", bench.output_tokens), fmt::format("{:.2f} tok/s", f.decode_tok_s),
             fmt::format("{:.2f} tok/s", f.floor_tok_s), fmt::format("{:.1f}%", f.ratio * 100)});
  table.add(
      {"a step", fmt::format("{:.2f} ms", 1e3 / f.decode_tok_s), fmt::format("{:.2f} ms", 1e3 / f.floor_tok_s), ""});
  std::fputs(table.render().c_str(), stdout);
  std::printf(
      "\nThe floor is reading the weights of a step once at the memory bandwidth measured after each run, %.1f GB/s; "
      "the ratio is the median of the runs'.\n",
      f.bandwidth / 1e9);
  std::printf("load %.2f s, process start to first token %.2f s, resident memory %s, at most %s\n", f.load_s,
              f.start_to_first_token_s, format_bytes(f.resident).c_str(), format_bytes(f.peak_resident).c_str());
  if (f.usage.draft_tokens > 0)
    std::printf("drafts: %d of %d accepted\n", f.usage.accepted_tokens, f.usage.draft_tokens);
}

void print_json(const LatencyBench& bench, const models::ModelInfo& info, const Figures& f) {
  const boost::json::object all{{"architecture", info.architecture},
                                {"precision", info.precision},
                                {"parameters", info.parameters},
                                {"weight_bytes", info.weight_bytes},
                                {"decode_bytes", info.decode_bytes},
                                {"prompt_tokens", bench.prompt_tokens},
                                {"output_tokens", bench.output_tokens},
                                {"first_token_s", f.first_token_s},
                                {"prefill_tokens_per_s", f.prefill_tok_s},
                                {"decode_tokens_per_s", f.decode_tok_s},
                                {"bandwidth_bytes_per_s", f.bandwidth},
                                {"floor_tokens_per_s", f.floor_tok_s},
                                {"of_floor", f.ratio},
                                {"load_s", f.load_s},
                                {"start_to_first_token_s", f.start_to_first_token_s},
                                {"resident_bytes", f.resident},
                                {"peak_resident_bytes", f.peak_resident},
                                {"draft_tokens", f.usage.draft_tokens},
                                {"accepted_tokens", f.usage.accepted_tokens}};
  std::printf("%s\n", boost::json::serialize(all).c_str());
}

}  // namespace

Status bench_latency(const LatencyBench& bench, const config::Config& config) {
  SW_TRY(check_model_options(config));
  Progress progress("loading", Progress::Unit::kBytes);
  SW_ASSIGN(LocalEngine local,
            load_local_engine(config, [&](int64_t done, int64_t total) { progress.update(done, total); }));
  progress.finish();
  SW_ASSIGN(const Figures figures, measure(bench, config, local));
  bench.as_json ? print_json(bench, local.info, figures) : print(bench, local.info, figures);
  return {};
}

}  // namespace spillway::apps
