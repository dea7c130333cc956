#include "engine/batching/batch_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>

#include "base/log.h"
#include "base/trace.h"
#include "tensor/cuda/cuda.h"

namespace spillway::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUpTokens = 128;
constexpr int kWarmUpRuns = 3;  // of each size: what the table trusts
// A device's first run of a size chooses algorithms, and its second is recorded as a graph.
constexpr int kDeviceUntimed = 2;

// Inputs of the model's shape; ids spread over the vocabulary.
struct Sample {
  std::vector<int32_t> tokens;
  std::vector<float> pixels;
  models::OneShotInput input;

  explicit Sample(const models::OneShotInfo& info, int64_t cost_max) {
    if (info.vision) {
      pixels.assign(static_cast<size_t>(info.channels) * info.height * info.width, 0.25f);
    } else {
      const int64_t count = std::min<int64_t>({kWarmUpTokens, info.tokens_max, cost_max});
      for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((1 + i * 7919) % info.vocab_size));
    }
    input.tokens = tokens;
    input.pixels = pixels;
    if (!info.outputs.empty()) input.output = info.outputs.front();
  }
};

// Batches of inputs like the sample's.
Status prepare(BatchRunner& runner, const Sample& sample, const BatchLimitOptions& limits, double allowed_s) {
  const auto began = Clock::now();
  const int64_t each = sample.input.cost();
  for (const int64_t cost : runner.model().prepared_costs()) {
    std::vector<models::OneShotInput> batch(static_cast<size_t>((cost + each - 1) / each), sample.input);
    if (cost > limits.cost_max || std::ssize(batch) > limits.inputs_max) break;
    if (seconds(Clock::now() - began) > allowed_s) {
      SW_INFO("sizes of batches from {} tokens on are not prepared for within {:.1f} s", cost, allowed_s);
      break;
    }
    if (cost % each > 0) batch.back().tokens = batch.back().tokens.first(static_cast<size_t>(cost % each));
    const BatchRunner::Output output = runner.run(batch);
    if (!output.failure.empty()) return Error{ErrorCode::kInternal, "warm-up: " + output.failure};
  }
  return {};
}

}  // namespace

BatchRunner::Launched BatchRunner::launch(std::span<const models::OneShotInput> batch, int slot) {
  Launched launched;
  launched.began = Clock::now();
  launched.inputs = batch.size();
  try {
    trace::Span span("engine", "one-shot batch", "inputs", static_cast<int64_t>(batch.size()));
    launched.views = slots() > 1 ? model_->run_in(slot, batch, stream_) : model_->run(batch, stream_);
    if (stream_.device().kind == tensor::DeviceKind::kCuda) launched.mark = stream_.cuda().mark();
    SW_CHECK(launched.views.size() == batch.size(), "an output for each input");
  } catch (const std::exception& error) {
    launched.failure = fmt::format("the batch of {} inputs failed: {}", batch.size(), error.what());
  }
  return launched;
}

BatchRunner::Output BatchRunner::finish(Launched launched, Clock::time_point since) {
  Output output;
  output.failure = std::move(launched.failure);
  output.ended = Clock::now();
  if (!output.failure.empty()) return output;
  try {
    trace::Span span("engine", "end of a one-shot batch", "inputs", static_cast<int64_t>(launched.inputs));
    if (launched.mark >= 0) {
      stream_.cuda().wait(launched.mark);
    } else {
      stream_.synchronize();
    }
    output.ended = Clock::now();
    output.latency_s = seconds(output.ended - std::max(launched.began, since));
    for (const tensor::TensorView& view : launched.views) {
      const auto* first = view.as<float>();
      output.values.emplace_back(first, first + view.elements());
    }
  } catch (const std::exception& error) {
    output.values.clear();
    output.failure = fmt::format("the batch of {} inputs failed: {}", launched.inputs, error.what());
  }
  return output;
}

Status warm_up(BatchRunner& runner, BatchScheduler& scheduler, const BatchLimitOptions& limits, double allowed_s) {
  if (allowed_s <= 0) return {};
  const auto began = Clock::now();
  const Sample sample(runner.model().info(), limits.cost_max);
  const int64_t cost = sample.input.cost();
  const int64_t most = std::min<int64_t>(limits.inputs_max, std::max<int64_t>(1, limits.cost_max / cost));
  bool first = true, in_time = true;
  double last_s = 0;
  for (int64_t inputs = 1; in_time; inputs = std::min(inputs * 2, most)) {
    const std::vector<models::OneShotInput> batch(static_cast<size_t>(inputs), sample.input);
    for (int i = runner.overlaps() ? -kDeviceUntimed : first ? -1 : 0; i < kWarmUpRuns; ++i) {
      const double expected_s = i <= 0 && inputs > 1 ? 2 * last_s : last_s;
      in_time = first || seconds(Clock::now() - began) + expected_s <= allowed_s;
      if (!in_time) break;
      const BatchRunner::Output output = runner.run(batch);
      if (!output.failure.empty()) return Error{ErrorCode::kInternal, "warm-up: " + output.failure};
      last_s = output.latency_s;
      if (i >= 0) {
        scheduler.measured(cost * inputs, static_cast<int>(inputs), output.latency_s, Clock::now());
      }
      first = false;
    }
    if (inputs == most) break;
  }
  SW_TRY(prepare(runner, sample, limits, allowed_s));
  scheduler.warmed_up();
  return {};
}

}  // namespace spillway::engine
