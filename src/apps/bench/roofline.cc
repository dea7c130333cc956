// bench roofline: what a step must at least read and compute, what this device can, and how long each stage takes.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <map>
#include <thread>

#include "apps/bench/bench.h"
#include "apps/bench/ceilings.h"
#include "apps/bench/measure.h"
#include "apps/local_model.h"
#include "apps/progress.h"
#include "apps/system.h"
#include "apps/table.h"
#include "kernels/tuning.h"
#include "tensor/cuda/cuda.h"

namespace spillway::apps {
namespace {

namespace json = boost::json;
using tensor::StageCost;
using tensor::StageLog;

struct Stage {
  std::string name;
  int launches = 0;
  double seconds = 0;
  StageCost cost;
};

struct Figures {
  std::string name;
  int64_t tokens = 0;  // that the step gives or computes
  double seconds = 0;  // of a whole step, one after another
  std::vector<Stage> stages;
  double rested_s = 0;              // after a pause: under load a power limit lowers the clocks; 0: not measured
  std::vector<double> idle_s = {};  // between steps: how long the device had nothing to compute; sorted
};

double floor_of(const StageCost& cost, const Ceilings& ceilings) {
  return std::max(cost.bytes / ceilings.bytes_per_s, cost.flops / ceilings.flops_per_s);
}

// One model, its cache for the case in hand, and steps over made-up tokens.
class Roofline {
 public:
  Roofline(BareModel bare, tensor::Stream stream, const RooflineBench& bench)
      : model_(std::move(bare.model)), stream_(std::move(stream)), bench_(bench) {}

  Result<Figures> decode(int sequences) {
    const int context = std::min(bench_.context_tokens, info().context_tokens_max - kSteps - 8 - bench_.rows);
    SW_TRY(make_cache(sequences, context + kSteps + 8 + bench_.rows));
    for (int s = 0; s < sequences; ++s) fill(s, context);
    std::vector<double> seconds;
    idle_s_.clear();
    for (int turn = 0; turn < kTurns; ++turn) seconds.push_back(run_steps(sequences, context));
    const std::string rows = bench_.rows > 1 ? fmt::format(" of {} rows", bench_.rows) : "";
    Figures figures{fmt::format("decode, {} sequences{} at context {}", sequences, rows, context),
                    int64_t{sequences} * bench_.rows,
                    median(seconds),
                    {}};
    StageLog log;
    for (int turn = 0; turn < 2; ++turn) {  // the first one warms up
      begin_watch(log);
      step(inputs_at(sequences, context));
      stream_.watch(nullptr);
    }
    figures.stages = sum_up(log);
    figures.idle_s = idle_s_;
    std::sort(figures.idle_s.begin(), figures.idle_s.end());
    return figures;
  }

  Result<Figures> prefill(int tokens) {
    const int count = std::min({tokens, model_->batch_tokens_max(), info().context_tokens_max});
    SW_TRY(make_cache(1, count));
    const models::SequenceInput input{.tokens = ids(count), .position = 0, .pages = pages_[0], .logits_rows = 1};
    const auto run = [&] {
      const auto begin = std::chrono::steady_clock::now();
      step({input});
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    run();
    std::vector<double> seconds, rested;
    for (int turn = 0; turn < kTurns; ++turn) seconds.push_back(run());
    StageLog log;
    begin_watch(log);
    run();
    stream_.watch(nullptr);
    Figures figures{fmt::format("prefill of {}", count), count, median(seconds), sum_up(log)};
    for (int turn = 0; turn < kTurns && stream_.device().kind == tensor::DeviceKind::kCuda; ++turn) {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      rested.push_back(run());
    }
    if (!rested.empty()) figures.rested_s = median(rested);
    return figures;
  }

  const models::ModelInfo& info() const { return model_->info(); }

 private:
  static constexpr int kTurns = 3;
  static constexpr int kSteps = 40;  // of a turn, without a pause

  Status make_cache(int sequences, int tokens) {
    const int page_tokens = stream_.device().kind == tensor::DeviceKind::kCpu ? 16 : 64;
    const int each = (tokens + page_tokens - 1) / page_tokens;
    kv_.reset();
    SW_ASSIGN(nn::KvStorage kv, nn::KvStorage::create(info().kv, page_tokens, sequences * each, stream_.device()));
    kv_.emplace(std::move(kv));
    pages_.assign(size_t(sequences), {});
    for (int p = 0; p < kv_->pages(); ++p) pages_[size_t(p % sequences)].push_back(p);
    return {};
  }

  std::span<const int32_t> ids(int count) {
    while (int(ids_.size()) < count) ids_.push_back(int32_t((ids_.size() * 7919 + 13) % size_t(info().vocab_size)));
    return std::span(ids_).first(size_t(count));
  }

  void fill(int sequence, int context) {
    const int chunk = model_->batch_tokens_max();
    const std::span<const int32_t> prompt = ids(context);
    for (int at = 0; at < context; at += chunk) {
      const auto slice = prompt.subspan(size_t(at), size_t(std::min(chunk, context - at)));
      step({{.tokens = slice, .position = at, .pages = pages_[size_t(sequence)], .logits_rows = 1}});
    }
  }

  // Every row another token, as far as the vocabulary goes: rows of one token would choose the same experts.
  std::vector<models::SequenceInput> inputs_at(int sequences, int position) {
    const int rows = bench_.rows;
    ids(sequences * rows);
    std::vector<models::SequenceInput> batch;
    for (int s = 0; s < sequences; ++s) {
      batch.push_back({.tokens = std::span(ids_).subspan(size_t(s * rows), size_t(rows)),
                       .position = position,
                       .pages = pages_[size_t(s)],
                       .logits_rows = rows});
    }
    return batch;
  }

  // As the engine does: on a device that draws tokens the next step is launched before this one has ended.
  void step(const std::vector<models::SequenceInput>& batch) {
    if (!model_->draws_tokens()) {
      model_->forward(batch, *kv_, stream_);
      return stream_.synchronize();
    }
    launch(batch);
    model_->land(stream_);
  }
  // The tokens drawn are not carried on: greedy ones of random weights soon are few, and with them the experts read.
  void launch(const std::vector<models::SequenceInput>& batch) {
    if (takes_drafts(batch)) return launch_drafted(batch);
    size_t rows = 0;
    for (const models::SequenceInput& input : batch) rows += size_t(input.logits_rows);
    const std::vector<models::TokenDraw> draws(rows, models::TokenDraw{.how = {.vocab = info().vocab_size}});
    const std::vector<int32_t> from(batch.size(), -1);
    model_->launch(batch, draws, from, *kv_, stream_);
  }

  // Two rows a sequence are its token and a draft: where the model has a draft layer, that is in the step too.
  bool takes_drafts(const std::vector<models::SequenceInput>& batch) const {
    return bench_.rows == 2 && batch[0].tokens.size() == 2 && batch[0].logits_rows == 2 &&
           int(batch.size()) <= model_->drafted_sequences_max();
  }
  void launch_drafted(const std::vector<models::SequenceInput>& batch) {
    std::vector<models::DraftedInput> inputs;
    for (const models::SequenceInput& input : batch) {
      models::DraftedInput& drafted = inputs.emplace_back();
      drafted.pages = input.pages;
      drafted.how.token = input.tokens[0];
      drafted.how.draft = input.tokens[1];
      drafted.how.position = input.position;
      drafted.how.draft_end = info().context_tokens_max;
      for (kernels::RowDraw& draw : drafted.how.draws) draw.vocab = info().vocab_size;
    }
    model_->launch_drafted(inputs, *kv_, stream_);
  }
  // first: nothing was under way when it was launched.
  void land(bool first) {
    const double idle_s = model_->land(stream_).idle_s;
    if (idle_s >= 0 && !first) idle_s_.push_back(idle_s);
  }

  // Seconds of one of kSteps steps in a row.
  double run_steps(int sequences, int context) {
    step(inputs_at(sequences, context));
    step(inputs_at(sequences, context + 1));
    const auto begin = std::chrono::steady_clock::now();
    bool ahead = false;
    for (int i = 0; i < kSteps; ++i) {
      const auto batch = inputs_at(sequences, context + 2 + i);
      if (!model_->draws_tokens()) {
        step(batch);
        continue;
      }
      launch(batch);
      if (ahead) land(i == 1);
      ahead = true;
    }
    if (ahead) land(false);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kSteps;
  }

  void begin_watch(StageLog& log) {
    log.clear();
    if (stream_.device().kind == tensor::DeviceKind::kCuda) stream_.cuda().forget_stamps();
    stream_.watch(&log);
  }

  std::vector<Stage> sum_up(const StageLog& log) {
    stream_.synchronize();
    const std::vector<double> seconds = stream_.durations(log);
    std::vector<Stage> stages;
    for (size_t i = 0; i < seconds.size(); ++i) {
      auto found = std::find_if(stages.begin(), stages.end(), [&](const Stage& s) { return s.name == log[i].name; });
      if (found == stages.end()) found = stages.insert(stages.end(), Stage{log[i].name, 0, 0, {}});
      ++found->launches;
      found->seconds += seconds[i];
      found->cost.bytes += log[i].cost.bytes;
      found->cost.flops += log[i].cost.flops;
    }
    std::sort(stages.begin(), stages.end(), [](const Stage& a, const Stage& b) { return a.seconds > b.seconds; });
    return stages;
  }

  std::unique_ptr<models::LanguageModel> model_;
  tensor::Stream stream_;
  const RooflineBench& bench_;
  std::optional<nn::KvStorage> kv_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<int32_t> ids_;
  std::vector<double> idle_s_;
};

StageCost total_of(const Figures& figures) {
  StageCost total;
  for (const Stage& stage : figures.stages) {
    total.bytes += stage.cost.bytes;
    total.flops += stage.cost.flops;
  }
  return total;
}

// The sum of the stages' floors: a step cannot do two of them at once better than that.
double floor_of(const Figures& figures, const Ceilings& ceilings) {
  double floor = 0;
  for (const Stage& stage : figures.stages) floor += floor_of(stage.cost, ceilings);
  return floor;
}

void print(const Figures& figures, const Ceilings& ceilings) {
  const double floor = floor_of(figures, ceilings);
  const StageCost total = total_of(figures);
  std::printf("\n%s: %.3f ms a step, %.1f tok/s; floor %.3f ms, %.0f%% of it reached; %.2f TB/s, %.1f TFLOP/s\n",
              figures.name.c_str(), figures.seconds * 1e3, double(figures.tokens) / figures.seconds, floor * 1e3,
              100 * floor / figures.seconds, total.bytes / figures.seconds / 1e12,
              total.flops / figures.seconds / 1e12);
  if (figures.rested_s > 0) {
    std::printf("after a pause: %.3f ms, %.1f tok/s, %.1f TFLOP/s\n", figures.rested_s * 1e3,
                double(figures.tokens) / figures.rested_s, total.flops / figures.rested_s / 1e12);
  }
  if (!figures.idle_s.empty()) {
    std::printf("the device had nothing to compute between steps for %.1f us (median of %zu), at worst %.1f\n",
                median(figures.idle_s) * 1e6, figures.idle_s.size(), figures.idle_s.back() * 1e6);
  }
  Table table({"stage", "times", "us", "each", "MB", "GFLOP", "floor us", "reached", "over, us"});
  for (const Stage& stage : figures.stages) {
    const double least = floor_of(stage.cost, ceilings);
    table.add({stage.name, std::to_string(stage.launches), fmt::format("{:.1f}", stage.seconds * 1e6),
               fmt::format("{:.2f}", stage.seconds * 1e6 / stage.launches),
               fmt::format("{:.1f}", stage.cost.bytes / 1e6), fmt::format("{:.1f}", stage.cost.flops / 1e9),
               fmt::format("{:.1f}", least * 1e6), fmt::format("{:.0f}%", 100 * least / stage.seconds),
               fmt::format("{:.1f}", (stage.seconds - least) * 1e6)});
  }
  std::fputs(table.render().c_str(), stdout);
  std::fflush(stdout);
}

json::object as_json(const Figures& figures, const Ceilings& ceilings) {
  json::array stages;
  for (const Stage& stage : figures.stages) {
    stages.push_back(json::object{{"name", stage.name},
                                  {"times", stage.launches},
                                  {"seconds", stage.seconds},
                                  {"bytes", stage.cost.bytes},
                                  {"flops", stage.cost.flops},
                                  {"floor_s", floor_of(stage.cost, ceilings)}});
  }
  json::object object{{"name", figures.name},
                      {"step_s", figures.seconds},
                      {"tokens_per_s", double(figures.tokens) / figures.seconds},
                      {"floor_s", floor_of(figures, ceilings)},
                      {"stages", std::move(stages)}};
  if (figures.rested_s > 0) object["after_pause_s"] = figures.rested_s;
  if (!figures.idle_s.empty()) {
    object["idle_s"] = median(figures.idle_s);
    object["idle_worst_s"] = figures.idle_s.back();
  }
  return object;
}

}  // namespace

Status bench_roofline(const RooflineBench& bench, const config::Config& config) {
  SW_TRY(check_model_options(config));
  Progress progress("loading", Progress::Unit::kBytes);
  SW_ASSIGN(BareModel bare,
            load_bare_model(config, bench.layers, [&](int64_t done, int64_t total) { progress.update(done, total); }));
  progress.finish();
  const tensor::Device device = bare.device;
  const double load_s = bare.load_s;
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(device, int(config.integer("hardware.threads"))));
  kernels::tune({.measure = config.boolean("hardware.autotune"), .known = {}}, stream);
  stream.set_batch_invariant(config.boolean("hardware.deterministic"));
  SW_ASSIGN(const Ceilings ceilings, measure_ceilings(stream));
  Roofline roofline(std::move(bare), std::move(stream), bench);
  const models::ModelInfo& info = roofline.info();
  const std::string name =
      device.kind == tensor::DeviceKind::kCuda ? tensor::cuda::device_info(device.index).name : "CPU";
  if (!bench.as_json) {
    std::printf("%s, %.1f M parameters, %s on %s: weights %s, loaded in %.1f s\n", info.architecture.c_str(),
                double(info.parameters) / 1e6, info.precision.c_str(), name.c_str(),
                format_bytes(info.weight_bytes).c_str(), load_s);
    std::printf("ceilings measured now: %.3f TB/s, %.1f TFLOP/s (%s)\n", ceilings.bytes_per_s / 1e12,
                ceilings.flops_per_s / 1e12, ceilings.what.c_str());
  }
  json::array cases;
  const auto show = [&](const Figures& figures) {
    if (bench.as_json) {
      cases.push_back(as_json(figures, ceilings));
    } else {
      print(figures, ceilings);
    }
  };
  for (const int sequences : bench.sequences) {
    SW_ASSIGN(const Figures figures, roofline.decode(sequences));
    show(figures);
  }
  if (bench.prefill_tokens > 0) {
    SW_ASSIGN(const Figures figures, roofline.prefill(bench.prefill_tokens));
    show(figures);
  }
  if (bench.as_json) {
    const json::object all{{"device", name},
                           {"architecture", info.architecture},
                           {"precision", info.precision},
                           {"bytes_per_s", ceilings.bytes_per_s},
                           {"flops_per_s", ceilings.flops_per_s},
                           {"cases", std::move(cases)}};
    std::printf("%s\n", json::serialize(all).c_str());
  }
  return {};
}

}  // namespace spillway::apps
