// What the processor can do, and which kernels were chosen for it.
#include <fmt/format.h>
#include <sched.h>

#include <fstream>
#include <set>
#include <sstream>

#include "apps/doctor/finding.h"
#include "apps/system.h"
#include "kernels/isa.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;

struct CpuInfo {
  std::string model = "unknown";
  std::set<std::string> flags;
  std::set<std::string> cores;  // "socket:core"
  int processors = 0;
};

CpuInfo read_cpu() {
  CpuInfo info;
  std::ifstream in("/proc/cpuinfo");
  std::string line, socket;
  while (std::getline(in, line)) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string name = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value = colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    if (name == "processor") ++info.processors;
    if (name == "model name") info.model = value;
    if (name == "physical id") socket = value;
    if (name == "core id") info.cores.insert(socket + ":" + value);
    if (name == "flags" && info.flags.empty()) {
      std::istringstream words(value);
      for (std::string word; words >> word;) info.flags.insert(word);
    }
  }
  return info;
}

std::string known_features(const CpuInfo& info) {
  std::string text;
  for (const char* name : {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
                           "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}) {
    if (info.flags.contains(name)) text += (text.empty() ? "" : " ") + std::string(name);
  }
  return text.empty() ? "none of the vector extensions that matter" : text;
}

// Processors that a control group's quota amounts to; 0 when there is none.
double quota_processors() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::stod(quota) / period;
}

}  // namespace

Findings check_cpu() {
  Findings findings;
  const CpuInfo info = read_cpu();
  findings.push_back({Level::kGood, "CPU",
                      fmt::format("{}: {} processors, {} cores", info.model, info.processors, info.cores.size()), ""});
  const auto isa = kernels::active_isa();
  const std::string features = known_features(info);
  if (isa == kernels::IsaLevel::kScalar) {
    findings.push_back({Level::kWarning, "kernels", "scalar kernels only; the CPU has " + features,
                        "use a CPU with AVX2 (any since 2014), or tell the hypervisor to pass the host's CPU through"});
  } else {
    findings.push_back({Level::kGood, "kernels", fmt::format("{} ({})", kernels::name_of(isa), features), ""});
  }
  if (isa != kernels::best_isa()) {
    findings.push_back({Level::kWarning, "kernels",
                        fmt::format("held below {}, which this CPU can run", kernels::name_of(kernels::best_isa())),
                        "unset SPILLWAY_CPU_ISA"});
  }
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int usable = sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : info.processors;
  if (usable < info.processors) {
    findings.push_back({Level::kWarning, "CPU",
                        fmt::format("this process may use {} of {} processors", usable, info.processors),
                        "widen the container's cpuset or the affinity, if that is not meant"});
  }
  if (const double quota = quota_processors(); quota > 0 && quota < usable) {
    findings.push_back({Level::kWarning, "CPU",
                        fmt::format("the container's quota is {:.1f} processors, but {} are visible", quota, usable),
                        fmt::format("pass --threads {} so that threads are not stopped in mid-step, or raise the quota",
                                    std::max(1, int(quota)))});
  }
  return findings;
}

}  // namespace spillway::apps
