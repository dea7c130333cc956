#include "engine/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "kv/cache.h"

namespace spillway::engine {
namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : kUnknown;   // "max" is no number: unlimited
}

int64_t system_available() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  int64_t kib = 0;
  while (file >> key >> kib >> unit) {
    if (key == "MemAvailable:") return kib * 1024;
  }
  return kUnknown;
}

int64_t group_available() {
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const int64_t used = number_in("/sys/fs/cgroup/memory.current");
  return limit == kUnknown || used == kUnknown ? kUnknown : std::max<int64_t>(0, limit - used);
}

}  // namespace

int64_t memory_available_bytes() { return std::min(system_available(), group_available()); }

int64_t choose_pages(const models::ModelInfo& info, const EngineOptions& options, int64_t available_bytes) {
  const int64_t page_bytes = info.kv.bytes_per_page(options.page_tokens);
  if (options.kv_cache_bytes > 0) return options.kv_cache_bytes / page_bytes;
  const int64_t context = kv::pages_for(info.context_tokens_max, options.page_tokens);
  return std::max(context, std::min(context * options.sequences_max, available_bytes / 4 / page_bytes));
}

}  // namespace spillway::engine
