// A one-shot model for tests: its outputs are simple functions of the input, its time is what on_run takes, and it
// checks the bounds of every batch.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "base/check.h"
#include "models/one_shot_model.h"

namespace spillway::engine::testing {

class FakeOneShotModel final : public models::OneShotModel {
 public:
  struct Options {
    int64_t cost_max = 1024;
    int inputs_max = 16;
    bool vision = false;
    std::function<void(std::span<const models::OneShotInput>)> on_run = nullptr;
    std::vector<int64_t> prepared_costs = {};
    int slots = 1;
  };

  explicit FakeOneShotModel(Options options) : options_(std::move(options)) {
    info_.architecture = "Fake";
    info_.outputs = {models::OneShotOutput::kEmbedding, models::OneShotOutput::kScores};
    info_.vision = options_.vision;
    info_.vocab_size = 100;
    info_.tokens_max = 512;
    info_.type_vocab_size = 2;
    info_.embedding_dims = 2;
    info_.channels = info_.height = info_.width = 2;
  }

  const models::OneShotInfo& info() const override { return info_; }
  int64_t batch_cost_max() const override { return options_.cost_max; }
  int batch_inputs_max() const override { return options_.inputs_max; }
  std::vector<int64_t> prepared_costs() const override { return options_.prepared_costs; }

  // The first token (pixel) and the sum of all.
  std::vector<tensor::TensorView> run(std::span<const models::OneShotInput> batch, tensor::Stream& stream) override {
    return run_in(0, batch, stream);
  }

  int slots() const override { return options_.slots; }
  std::vector<tensor::TensorView> run_in(int slot, std::span<const models::OneShotInput> batch,
                                         tensor::Stream&) override {
    SW_CHECK(!batch.empty() && int(batch.size()) <= options_.inputs_max, "inputs within the bound");
    int64_t cost = 0;
    for (const auto& input : batch) cost += input.cost();
    SW_CHECK(cost <= options_.cost_max, "cost within the bound");
    if (options_.on_run) options_.on_run(batch);
    auto& values = values_[static_cast<size_t>(slot)];
    values.assign(batch.size(), {});
    std::vector<tensor::TensorView> views;
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto& input = batch[i];
      float sum = 0;
      for (const int32_t token : input.tokens) sum += static_cast<float>(token);
      for (const float pixel : input.pixels) sum += pixel;
      values[i] = {input.tokens.empty() ? input.pixels[0] : static_cast<float>(input.tokens[0]), sum};
      views.emplace_back(values[i].data(), tensor::DType::kF32, tensor::Shape{2});
    }
    return views;
  }

 private:
  Options options_;
  models::OneShotInfo info_;
  std::array<std::vector<std::array<float, 2>>, 2> values_;  // by slot
};

}  // namespace spillway::engine::testing
