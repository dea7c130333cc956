#include "kernels/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <cstdlib>
#include <string>

#include "base/check.h"
#include "kernels/cpu/kernel_table.h"

namespace spillway::kernels {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"scalar", "avx2", "avx512", "avx512_bf16", "amx", "amx_emulated"};

#if defined(__x86_64__)
// clang 14's __builtin_cpu_supports() does not know f16c.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

// Whether CPU and system have the tile unit, and the system lets this process use it: its registers are 8 KiB of each
// thread's state, which Linux (5.16) gives to those that ask.
bool has_tiles() {
  constexpr unsigned kTile = 1u << 24, kTileBf16 = 1u << 22, kTileInt8 = 1u << 25;  // of leaf 7's edx
  constexpr int kRequestPermission = 0x1023, kTileData = 18;                        // ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const unsigned wanted = kTile | kTileBf16 | kTileInt8;
  return (d & wanted) == wanted && ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

bool runs_here(IsaLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case IsaLevel::kScalar:
      return true;
    case IsaLevel::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case IsaLevel::kAvx512:
      return runs_here(IsaLevel::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case IsaLevel::kAvx512Bf16:
      return runs_here(IsaLevel::kAvx512) && __builtin_cpu_supports("avx512bf16") &&
             __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    case IsaLevel::kAmx: {
      static const bool tiles = has_tiles();
      return tiles && runs_here(IsaLevel::kAvx512Bf16);
    }
    case IsaLevel::kAmxEmulated:
      return runs_here(IsaLevel::kAvx512Bf16);
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
    case IsaLevel::kAmx:
      return cpu::amx_kernels();
    case IsaLevel::kAmxEmulated:
      return cpu::amx_emulated_kernels();
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
  std::string names;
  for (const std::string_view name : kNames) names += (names.empty() ? "" : ", ") + std::string(name);
  check_failed(__FILE__, __LINE__, "SPILLWAY_CPU_ISA",
               "expected one of " + names + ", found \"" + std::string(forced) + "\"");
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

IsaLevel best_isa() {
  IsaLevel best = IsaLevel::kScalar;
  for (const IsaLevel level : available_isas()) {
    if (level != IsaLevel::kAmxEmulated) best = level;
  }
  return best;
}
bool has_bf16_products(IsaLevel level) { return level >= IsaLevel::kAvx512Bf16; }
IsaLevel active_isa() { return choice().level; }

void force_isa(IsaLevel level) {
  SW_CHECK(runs_here(level), "this CPU does not have " + std::string(name_of(level)));
  choice() = Choice{level, table_of(level)};
}

namespace cpu {
const KernelTable& kernel_table() { return choice().table; }
}  // namespace cpu

}  // namespace spillway::kernels
