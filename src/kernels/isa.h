// IsaLevel: which instruction sets the CPU kernels may use. Chosen once at start-up from the CPU, or forced by the
// environment variable SPILLWAY_CPU_ISA (a name_of()) or by a test.
#pragma once

#include <string_view>
#include <vector>

namespace spillway::kernels {

enum class IsaLevel {
  kScalar,
  kAvx2,
  kAvx512,
  kAvx512Bf16,
  kAmx,
  kAmxEmulated,  // AMX's code with the tile unit's instructions in plain ones, for tests: never the best
};

std::string_view name_of(IsaLevel level);

// The best level of this CPU, and all that it can run (each is tested).
IsaLevel best_isa();
std::vector<IsaLevel> available_isas();

// Whether it multiplies bf16 faster than float32.
bool has_bf16_products(IsaLevel level);

// The level in use. force_isa is for tests and benchmarks, while no kernel runs.
IsaLevel active_isa();
void force_isa(IsaLevel level);

}  // namespace spillway::kernels
