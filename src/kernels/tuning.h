// Kernel choices by measurement, of a GPU's product library: which of its kernels is fastest for a shape. A stream is
// told before its first product; what it learned comes back as text, to be kept by the caller (engine/tuning_file.h)
// for a later start on the same device with the same library. On the CPU there is nothing to learn.
#pragma once

#include <string>

#include "tensor/stream.h"

namespace spillway::kernels {

struct Tuning {
  bool measure = false;  // shapes that are not known yet, when they first run outside a capture
  std::string known;     // of an earlier learned(); lines that are not understood are left out
};
void tune(const Tuning& tuning, tensor::Stream& stream);

// Everything known now: a line a shape.
std::string learned(tensor::Stream& stream);

}  // namespace spillway::kernels
