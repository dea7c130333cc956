#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace spillway::nn {
namespace {

// The dimension whose wave turns `rotations` times over the original context.
double correction_dimension(double rotations, int dim, double theta, double context) {
  return dim * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

void apply_yarn(std::vector<double>& frequencies, int dim, double theta, const RopeScaling& scaling) {
  double low = correction_dimension(scaling.beta_fast, dim, theta, scaling.original_max_position);
  double high = correction_dimension(scaling.beta_slow, dim, theta, scaling.original_max_position);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // as the reference, against dividing by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((double(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] * (1 - ramp) + frequencies[i] / scaling.factor * ramp;
  }
}

void apply_llama3(std::vector<double>& frequencies, const RopeScaling& scaling) {
  const double low_wavelength = scaling.original_max_position / scaling.low_freq_factor;
  const double high_wavelength = scaling.original_max_position / scaling.high_freq_factor;
  for (double& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      frequency /= scaling.factor;
      continue;
    }
    const double smooth = (scaling.original_max_position / wavelength - scaling.low_freq_factor) /
                          (scaling.high_freq_factor - scaling.low_freq_factor);
    frequency = (1 - smooth) * frequency / scaling.factor + smooth * frequency;
  }
}

}  // namespace

std::vector<double> rope_frequencies(int dim, double theta, const RopeScaling& scaling) {
  std::vector<double> frequencies(static_cast<size_t>(dim) / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = std::pow(theta, -2.0 * double(i) / dim);
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      break;
    case RopeScaling::Kind::kLinear:
      for (double& frequency : frequencies) frequency /= scaling.factor;
      break;
    case RopeScaling::Kind::kLlama3:
      apply_llama3(frequencies, scaling);
      break;
    case RopeScaling::Kind::kYarn:
      apply_yarn(frequencies, dim, theta, scaling);
      break;
  }
  return frequencies;
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

double rope_magnitude(const RopeScaling& scaling) {
  if (scaling.kind != RopeScaling::Kind::kYarn) return 1;
  if (scaling.attention_factor != 0) return scaling.attention_factor;
  if (scaling.mscale != 0 && scaling.mscale_all_dim != 0) {
    return yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim);
  }
  return yarn_mscale(scaling.factor, 1);
}

RopeTable::RopeTable(int dim, double theta, const RopeScaling& scaling, int positions_max)
    : magnitude_(float(rope_magnitude(scaling))),
      inverse_frequencies_(tensor::DType::kF32, {dim / 2}),
      table_(tensor::DType::kF32, {positions_max, 2, dim / 2}) {
  const std::vector<double> frequencies = rope_frequencies(dim, theta, scaling);
  std::copy(frequencies.begin(), frequencies.end(), inverse_frequencies_.as<float>());
}

void RopeTable::place(tensor::Stream& stream) {
  if (stream.device().kind == tensor::DeviceKind::kCpu) return;
  kernels::fill_rope_table(inverse_frequencies_, magnitude_, table_, stream);
  table_ = stream.place(std::move(table_));
  placed_ = true;
}

tensor::TensorView RopeTable::rows(int64_t positions, tensor::Stream& stream) {
  if (!placed_ && positions > filled_) {
    filled_ = std::min(table_.shape()[0], std::max({positions, 2 * filled_, kFirstRows}));
    kernels::fill_rope_table(inverse_frequencies_, magnitude_, table_.view().rows(0, filled_), stream);
  }
  return table_;
}

}  // namespace spillway::nn
