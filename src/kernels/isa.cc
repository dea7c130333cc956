#include "kernels/isa.h"

#include <array>
#include <cstdlib>
#include <string>

#include "base/check.h"
#include "kernels/cpu/kernel_table.h"

namespace spillway::kernels {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"scalar", "avx2", "avx512", "avx512_bf16"};

bool runs_here(IsaLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case IsaLevel::kScalar:
      return true;
    case IsaLevel::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case IsaLevel::kAvx512:
      return runs_here(IsaLevel::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case IsaLevel::kAvx512Bf16:
      return runs_here(IsaLevel::kAvx512) && __builtin_cpu_supports("avx512bf16") &&
             __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  }
#endif
  return level == IsaLevel::kScalar;
}

cpu::KernelTable table_of(IsaLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case IsaLevel::kScalar:
      break;
    case IsaLevel::kAvx2:
      return cpu::avx2_kernels();
    case IsaLevel::kAvx512:
      return cpu::avx512_kernels();
    case IsaLevel::kAvx512Bf16:
      return cpu::avx512_bf16_kernels();
  }
#endif
  return cpu::scalar_kernels();
}

struct Choice {
  IsaLevel level;
  cpu::KernelTable table;
};

IsaLevel wanted_isa() {
  const char* forced = std::getenv("SPILLWAY_CPU_ISA");
  if (forced == nullptr) return best_isa();
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (forced != kNames[i]) continue;
    const auto level = static_cast<IsaLevel>(i);
    SW_CHECK(runs_here(level), "SPILLWAY_CPU_ISA=" + std::string(forced) + ": this CPU does not have it");
    return level;
  }
  check_failed(__FILE__, __LINE__, "SPILLWAY_CPU_ISA",
               "expected scalar, avx2, avx512 or avx512_bf16, found \"" + std::string(forced) + "\"");
}

Choice& choice() {
  static Choice chosen = [] {
    const IsaLevel level = wanted_isa();
    return Choice{level, table_of(level)};
  }();
  return chosen;
}

}  // namespace

std::string_view name_of(IsaLevel level) { return kNames[static_cast<size_t>(level)]; }

std::vector<IsaLevel> available_isas() {
  std::vector<IsaLevel> levels;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (runs_here(static_cast<IsaLevel>(i))) levels.push_back(static_cast<IsaLevel>(i));
  }
  return levels;
}

IsaLevel best_isa() { return available_isas().back(); }
IsaLevel active_isa() { return choice().level; }

void force_isa(IsaLevel level) {
  SW_CHECK(runs_here(level), "this CPU does not have " + std::string(name_of(level)));
  choice() = Choice{level, table_of(level)};
}

namespace cpu {
const KernelTable& kernel_table() { return choice().table; }
}  // namespace cpu

}  // namespace spillway::kernels
