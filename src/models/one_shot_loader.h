// Loading a one-shot model (an encoder or a vision model) by its config.json. May be called from any thread; the model
// it gives is then its engine's alone. A family is one file that defines its loader, and one row of the registry
// (one_shot_registry.cc), which also names the kinds of device that the family runs on.
#pragma once

#include <boost/json/fwd.hpp>
#include <memory>
#include <string>

#include "base/result.h"
#include "kernels/device_encoder.h"
#include "models/loader.h"
#include "models/one_shot_model.h"
#include "nn/linear.h"
#include "nn/one_shot_step.h"

namespace spillway::models {

// Whether config.json names a family of one-shot models; unknown families are not.
bool is_one_shot(const boost::json::object& config);

// fusions: all of them but for measurements.
Result<std::unique_ptr<OneShotModel>> load_one_shot_model(const LoadOptions& options, const nn::Fusions& fusions = {});

// What a family's loader is given.
struct OneShotLoad {
  std::unique_ptr<weights::WeightSource> source;  // the model keeps it
  std::string folder;                             // of files beside config.json; empty: none
  kernels::Precision precision;                   // of the CPU's kernels
  kernels::DeviceNumbers numbers;                 // of other devices'
  std::string precision_name;
  int batch_tokens_max;
  nn::Fusions fusions;
  tensor::Stream& stream;
};
using OneShotLoader = Result<std::unique_ptr<OneShotModel>> (*)(const boost::json::object& config, OneShotLoad load);

Result<std::unique_ptr<OneShotModel>> load_encoder(const boost::json::object& config, OneShotLoad load);
Result<std::unique_ptr<OneShotModel>> load_device_encoder(const boost::json::object& config, OneShotLoad load);
Result<std::unique_ptr<OneShotModel>> load_resnet(const boost::json::object& config, OneShotLoad load);
Result<std::unique_ptr<OneShotModel>> load_device_resnet(const boost::json::object& config, OneShotLoad load);

// What an encoder's config says of it, on every device.
struct EncoderConfig;
OneShotInfo describe_encoder(const EncoderConfig& config, bool has_pooler, bool has_types);

// What loading the weights told: their bytes, their number, and the numbers they are computed in.
void tell_loaded(const nn::LoadContext& context, const std::string& precision, OneShotInfo& info);

// The loader of config.json's "architectures" on the device, or an error that lists what is served there.
Result<OneShotLoader> find_one_shot_family(const boost::json::object& config, tensor::Device device);

}  // namespace spillway::models
