// What a device can, measured now: the two ceilings that a roofline stands on.
#pragma once

#include <string>

#include "base/result.h"
#include "tensor/stream.h"

namespace spillway::apps {

struct Ceilings {
  double bytes_per_s = 0;
  double flops_per_s = 0;
  std::string what;  // how they were measured
};

// On a GPU by a large copy (bytes read and written) and a large bf16 product; on the CPU by reads and an fp32 product.
Result<Ceilings> measure_ceilings(tensor::Stream& stream);

}  // namespace spillway::apps
