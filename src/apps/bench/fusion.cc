// spillway bench fusion: what each fusion of a one-shot model is worth, in launches and in time.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "apps/bench/bench.h"
#include "apps/local_model.h"
#include "apps/table.h"
#include "models/one_shot_loader.h"

namespace spillway::apps {
namespace {

// All fusions, each alone switched off, and none.
std::vector<std::pair<std::string, nn::Fusions>> variants(bool vision, bool on_cpu) {
  std::vector<std::pair<std::string, nn::Fusions>> list = {{"all fused", {}}};
  const auto without = [&](const char* name, bool nn::Fusions::*one) {
    nn::Fusions fusions;
    fusions.*one = false;
    list.emplace_back(name, fusions);
  };
  if (vision) {
    without("convolution, batch norm, ReLU, residual apart", &nn::Fusions::convolution);
    return list;
  }
  without("queries, keys, values apart", &nn::Fusions::qkv);
  without("bias and activation apart", &nn::Fusions::epilogue);
  without("residual apart", &nn::Fusions::residual_norm);
  without("embedding and norm apart", &nn::Fusions::embedding_norm);
  if (on_cpu) without("unread rows of the last layer as well", &nn::Fusions::firsts);
  list.emplace_back("nothing fused", nn::Fusions{false, false, false, false, false});
  return list;
}

// One batch, the same for every variant.
struct Inputs {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<float> pixels;
  std::vector<models::OneShotInput> batch;
};

Inputs make_inputs(const models::OneShotInfo& info, const FusionBench& bench) {
  std::mt19937 random(1);
  Inputs inputs;
  if (info.vision) {
    std::normal_distribution<float> normal;
    inputs.pixels.resize(size_t(info.channels) * size_t(info.height) * size_t(info.width));
    for (float& value : inputs.pixels) value = normal(random);
  }
  for (int i = 0; i < bench.inputs; ++i) {
    models::OneShotInput input;
    input.output = info.outputs.front();
    if (info.vision) {
      input.pixels = inputs.pixels;
    } else {
      std::vector<int32_t> tokens;
      for (int t = 0; t < std::min(bench.tokens, info.tokens_max); ++t)
        tokens.push_back(int32_t(random() % uint32_t(info.vocab_size)));
      inputs.tokens.push_back(std::move(tokens));
    }
    inputs.batch.push_back(input);
  }
  for (size_t i = 0; i < inputs.tokens.size(); ++i) inputs.batch[i].tokens = inputs.tokens[i];
  return inputs;
}

// The first run touches its memory; on a GPU it chooses algorithms, and the second is recorded.
constexpr int kUntimed = 3;

struct Measured {
  int64_t launches = 0;
  double best_s = 1e9;
};

Measured measure(models::OneShotModel& model, const Inputs& inputs, int repeats, tensor::Stream& stream) {
  Measured measured;
  for (int i = 0; i < repeats + kUntimed; ++i) {
    const auto start = std::chrono::steady_clock::now();
    model.run(inputs.batch, stream);
    stream.synchronize();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i >= kUntimed) measured.best_s = std::min(measured.best_s, took);
  }
  measured.launches = model.launches();
  return measured;
}

}  // namespace

Status bench_fusion(const FusionBench& bench, const config::Config& config) {
  models::LoadOptions load{.path = config.text("model.path"), .device = {}, .progress = {}};
  load.random_weights = config.boolean("model.random_weights");
  load.threads = int(config.integer("hardware.threads"));
  load.batch_tokens_max = bench.inputs * bench.tokens;
  SW_ASSIGN(load.precision, models::parse_precision(config.text("model.precision")));
  SW_ASSIGN(load.device, chosen_device(config));
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(load.device, load.threads));
  SW_ASSIGN(const auto whole, models::load_one_shot_model(load));
  const models::OneShotInfo info = whole->info();
  if (bench.inputs > whole->batch_inputs_max() ||
      bench.inputs * (info.vision ? 1 : bench.tokens) > whole->batch_cost_max())
    return invalid(fmt::format("--inputs: expected at most {}, found {}", whole->batch_inputs_max(), bench.inputs));
  const Inputs inputs = make_inputs(info, bench);
  Table table({"variant", "launches", "ms", "times the fused"});
  double fused = 0;
  for (const auto& [name, fusions] : variants(info.vision, load.device == tensor::Device())) {
    auto loaded = models::load_one_shot_model(load, fusions);
    if (!loaded.ok() && loaded.error().code == ErrorCode::kUnsupported) {
      table.add({name, "-", "-", loaded.error().message});
      continue;
    }
    SW_ASSIGN(const auto model, std::move(loaded));
    const Measured measured = measure(*model, inputs, bench.repeats, stream);
    if (fused == 0) fused = measured.best_s;
    table.add({name, fmt::format("{}", measured.launches), fmt::format("{:.2f}", measured.best_s * 1e3),
               fmt::format("{:.2f}", measured.best_s / fused)});
  }
  std::printf("%s, %s, %s, %d inputs%s\n\n%s", info.architecture.c_str(), info.precision.c_str(),
              tensor::to_string(load.device).c_str(), bench.inputs,
              info.vision ? "" : fmt::format(" of {} tokens", bench.tokens).c_str(), table.render().c_str());
  return {};
}

}  // namespace spillway::apps
