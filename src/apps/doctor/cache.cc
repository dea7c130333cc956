// The cache of packed weights: where it is, how full, and whether it can be used.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "apps/doctor/finding.h"
#include "apps/local_model.h"
#include "apps/system.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;
namespace fs = std::filesystem;

constexpr const char* kSubject = "cache";

// The folder itself, or the nearest one above it that exists.
fs::path existing_part(fs::path folder) {
  std::error_code error;
  while (!fs::exists(folder, error) && folder.has_parent_path() && folder != folder.parent_path()) {
    folder = folder.parent_path();
  }
  return folder;
}

}  // namespace

Findings check_cache(const config::Config& config) {
  const weights::PackedCacheOptions options = cache_options(config);
  if (options.mode == weights::PackedCacheOptions::Mode::kOff) {
    return {{Level::kGood, kSubject, "model.cache is off: every start packs the weights anew", ""}};
  }
  const std::string folder = options.folder.empty() ? weights::default_cache_folder() : options.folder;
  if (folder.empty()) {
    return {{Level::kWarning, kSubject, "neither HOME nor XDG_CACHE_HOME says where to keep them",
             "--model-cache-dir DIR, so that the second start is fast"}};
  }
  const fs::path existing = existing_part(folder);
  if (::access(existing.c_str(), R_OK | W_OK | X_OK) != 0) {
    return {{Level::kWarning, kSubject, existing.string() + " may not be written to by this user",
             "--model-cache-dir DIR with a folder of your own, so that the second start is fast"}};
  }
  std::error_code error;
  const fs::space_info disk = fs::space(existing, error);
  const weights::CacheUse use = weights::cache_use(folder);
  const std::string what = fmt::format("{} files of {} in {}, at most {}; the disk has {} free of {}", use.files,
                                       format_bytes(use.bytes), folder, format_bytes(options.bytes_max),
                                       format_bytes(int64_t(disk.available)), format_bytes(int64_t(disk.capacity)));
  if (error || double(disk.available) >= weights::kDiskShareFree * double(disk.capacity)) {
    return {{Level::kGood, kSubject, what, ""}};
  }
  return {{Level::kWarning, kSubject, what,
           fmt::format("free some: below {:.0f}% nothing is written, and every start packs the weights anew",
                       weights::kDiskShareFree * 100)}};
}

}  // namespace spillway::apps
