// The heads of encoder_heads.h for a device: everything up to the float32 answers stays in its memory. Owned by the
// encoder; engine's thread.
#pragma once

#include <optional>
#include <vector>

#include "models/encoder_config.h"
#include "models/sentence_config.h"
#include "nn/device_encoder_layer.h"

namespace spillway::models {

// One pass, and where its sequences lie.
struct DeviceHeadPass {
  const nn::DevicePass& pass;
  tensor::Arena& arena;         // of the device
  tensor::TensorView offsets;   // i32 [S + 1]
  tensor::TensorView sequence;  // i32 [T], -1 for rows of none
  int64_t sequences() const { return offsets.shape[0] - 1; }
};

class DeviceSentenceHead {
 public:
  static Result<DeviceSentenceHead> load(const SentenceConfig& config, int hidden, kernels::DeviceNumbers numbers,
                                         nn::LoadContext& context);
  int dims() const { return dims_; }
  tensor::TensorView apply(tensor::TensorView x, const DeviceHeadPass& head) const;  // f32 [S, dims]

 private:
  SentenceConfig config_;
  int dims_ = 0;
  std::vector<kernels::DeviceLinear> dense_;
};

class DeviceClassifierHead {
 public:
  static Result<DeviceClassifierHead> load(const weights::WeightScope& scope, const ClassifierNames& names, int hidden,
                                           int labels, double epsilon, kernels::DeviceNumbers numbers,
                                           nn::LoadContext& context);
  tensor::TensorView apply(tensor::TensorView x, const DeviceHeadPass& head) const;  // f32 [S, labels or hidden]

 private:
  ClassifierNames names_;
  std::optional<kernels::DeviceLinear> dense_;
  std::optional<nn::LayerNorm> norm_;
  std::optional<kernels::DeviceLinear> output_;
};

class DeviceSparseHead {
 public:
  static Result<DeviceSparseHead> load(const weights::WeightScope& scope, const weights::WeightScope& words,
                                       const EncoderConfig& config, kernels::DeviceNumbers numbers,
                                       nn::LoadContext& context);
  tensor::TensorView apply(tensor::TensorView x, const DeviceHeadPass& head) const;  // f32 [S, vocabulary]

  static size_t workspace_bytes(const EncoderConfig& config, int64_t inputs);

 private:
  static constexpr int64_t kRows = 512;  // tokens whose logits are there at a time

  kernels::Activation activation_ = kernels::Activation::kGelu;
  kernels::DeviceLinear dense_, decoder_;
  std::optional<nn::LayerNorm> norm_;
};

}  // namespace spillway::models
