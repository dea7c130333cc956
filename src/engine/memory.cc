#include "engine/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "kv/cache.h"

namespace spillway::engine {
namespace {

constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which older headers lack
constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : kUnknown;  // "max" is no number: unlimited
}

// The number behind `wanted` in a file of names and numbers.
int64_t number_named(const char* path, const char* wanted) {
  std::ifstream file(path);
  std::string name, line;
  for (int64_t value = 0; file >> name >> value; std::getline(file, line)) {
    if (name == wanted) return value;
  }
  return kUnknown;
}

int64_t system_available() {
  const int64_t kib = number_named("/proc/meminfo", "MemAvailable:");
  return kib == kUnknown ? kUnknown : kib * 1024;
}

int64_t group_available() {
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const int64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit == kUnknown || used == kUnknown) return kUnknown;
  const int64_t cached = number_named("/sys/fs/cgroup/memory.stat", "file");
  return std::max<int64_t>(0, limit - used + (cached == kUnknown ? 0 : cached));
}

}  // namespace

Status make_resident(std::byte* begin, int64_t bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + page - 1) / page * page,
                  last = (address + static_cast<uintptr_t>(bytes)) / page * page;
  if (first >= last) return {};
  const size_t length = last - first;
  if (::madvise(reinterpret_cast<void*>(first), length, kPopulateWrite) == 0) return {};
  if (errno != EINVAL) {
    return Error{ErrorCode::kResourceExhausted, std::string("cannot make the cache resident: ") + std::strerror(errno)};
  }
  // A system older than Linux 5.14: by hand.
  for (uintptr_t at = first; at < last; at += page) {
    auto* byte = reinterpret_cast<volatile std::byte*>(at);
    *byte = *byte;
  }
  return {};
}

int64_t memory_available_bytes() { return std::min(system_available(), group_available()); }

int64_t choose_pages(const models::ModelInfo& info, const EngineOptions& options, int64_t available_bytes) {
  const int64_t page_bytes = info.kv.bytes_per_page(options.page_tokens);
  if (options.kv_cache_bytes > 0) return options.kv_cache_bytes / page_bytes;
  const int64_t context = kv::pages_for(info.context_tokens_max, options.page_tokens);
  const int64_t free = std::max<int64_t>(0, available_bytes - info.mapped_bytes);
  return std::max(context, std::min(context * options.sequences_max, free / 4 / page_bytes));
}

}  // namespace spillway::engine
