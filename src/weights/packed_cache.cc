#include "weights/packed_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "weights/check_stamp.h"
#include "weights/checksum.h"

namespace spillway::weights {
namespace {

namespace fs = std::filesystem;

constexpr const char* kExtension = ".packed";
constexpr const char* kLock = ".lock";

struct CachedFile {
  fs::path path;
  int64_t bytes = 0;
  fs::file_time_type used;
};

std::vector<CachedFile> cached_files(const fs::path& folder) {
  std::vector<CachedFile> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (at->path().extension() != kExtension || !at->is_regular_file(ignored)) continue;
    CachedFile file{at->path(), int64_t(at->file_size(ignored)), at->last_write_time(ignored)};
    if (ignored) continue;
    const auto used = fs::last_write_time(CheckStamp::path_of(at->path().string()), ignored);
    if (!ignored) file.used = std::max(file.used, used);
    files.push_back(std::move(file));
  }
  return files;
}

// The owner is this user or root, and nobody else may write.
Status check_owner(const std::string& path, const struct stat& info) {
  if (info.st_uid != ::geteuid() && info.st_uid != 0) {
    return invalid(
        fmt::format("{}: expected an owner of {} (this user) or 0, found {}", path, ::geteuid(), info.st_uid));
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return invalid(
        fmt::format("{}: expected that only its owner may write, found mode {:o}", path, info.st_mode & 07777));
  }
  return {};
}

// Status of a path that may be a link to elsewhere: not followed for a file in the folder.
Status check_file(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return not_found(fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISREG(info.st_mode)) return invalid(fmt::format("{}: expected a regular file", path));
  return check_owner(path, info);
}

Status check_folder(const std::string& folder) {
  struct stat info {};
  if (::stat(folder.c_str(), &info) != 0) return not_found(fmt::format("{}: {}", folder, std::strerror(errno)));
  if (!S_ISDIR(info.st_mode)) return invalid(fmt::format("{}: expected a folder", folder));
  return check_owner(folder, info);
}

Status make_folder(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) {
    const fs::path path(folder);
    if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
    if (!error && ::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) error.assign(errno, std::generic_category());
    if (error) return invalid(fmt::format("{}: cannot be made: {}", folder, error.message()));
  }
  return check_folder(folder);
}

// Held while writing; one writer in the folder at a time.
class FolderLock {
 public:
  static Result<FolderLock> take(const std::string& folder) {
    const std::string path = folder + "/" + kLock;
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return invalid(fmt::format("{}: {}", path, std::strerror(errno)));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      ::close(fd);
      return Error{ErrorCode::kCancelled, "another process is writing there"};
    }
    return FolderLock(fd);
  }
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

// What writers that were killed left. Only under the lock.
void remove_unfinished(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.find(kUnfinished) != std::string::npos || name.find(".checked-") != std::string::npos) {
      left.push_back(entry.path());
    }
  }
  for (const fs::path& path : left) fs::remove(path, error);
}

// Whether the disk keeps its share free after it took so many more bytes.
Status check_disk(const std::string& folder, double more) {
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0) return invalid(fmt::format("{}: {}", folder, std::strerror(errno)));
  const double total = double(disk.f_blocks) * double(disk.f_frsize);
  const double free = double(disk.f_bavail) * double(disk.f_frsize);
  if (free - more >= kDiskShareFree * total) return {};
  return Error{
      ErrorCode::kResourceExhausted,
      fmt::format("{}: of the disk's {:.0f} MB {:.0f} are free; with {:.0f} more in use less than {:.0f}% would be",
                  folder, total / 1e6, free / 1e6, more / 1e6, kDiskShareFree * 100)};
}

// "Qwen2.5-7B-bf16-0123456789abcdef.packed": the folder's name for people, the checksum of its path to tell two apart.
std::string file_name(const std::string& model, const std::string& variant) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(model, error);
  const std::string full = error ? model : path.string();
  const uint64_t sum = checksum(std::as_bytes(std::span(full)));
  std::string name = fs::path(full).filename().string();
  name.resize(std::min<size_t>(name.size(), 100));
  return fmt::format("{}-{}-{:016x}{}", name, variant, sum, kExtension);
}

}  // namespace

std::string default_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return std::string(cache) + "/spillway";
  const char* home = std::getenv("HOME");
  return home == nullptr || *home == '\0' ? "" : std::string(home) + "/.cache/spillway";
}

CacheUse cache_use(const std::string& folder) {
  CacheUse use;
  for (const CachedFile& file : cached_files(folder)) ++use.files, use.bytes += file.bytes;
  return use;
}

PackedCache::PackedCache(PackedCacheOptions options, const std::string& model, const std::string& variant,
                         std::string identity)
    : options_(std::move(options)), identity_(std::move(identity)) {
  if (options_.folder.empty()) options_.folder = default_cache_folder();
  if (options_.folder.empty()) options_.mode = PackedCacheOptions::Mode::kOff;
  path_ = options_.folder + "/" + file_name(model, variant);
}

Result<PackedFile> PackedCache::read(tensor::Stream& stream, const Progress& progress) const {
  SW_TRY(check_folder(options_.folder));
  SW_TRY(check_file(path_));
  auto file = PackedFile::open(path_);
  if (!file.ok()) return std::move(file).error().in(path_);
  if (file->identity() != identity_) {
    return not_found(fmt::format("{}: was made from another state of the checkpoint or by another version", path_));
  }
  file->prefetch();
  const CheckStamp stamp(path_);
  if (!stamp.valid()) {
    const Status verified = file->verify(stream, progress);
    if (!verified.ok()) return Error(verified.error()).in(path_);
  }
  stamp.renew();
  return file;
}

Status PackedCache::make_room(uint64_t bytes) const {
  const auto needed = int64_t(bytes);
  if (needed > options_.bytes_max) {
    return Error{
        ErrorCode::kResourceExhausted,
        fmt::format("the packed weights take {} bytes of the {} that the cache may", needed, options_.bytes_max)};
  }
  std::vector<CachedFile> files = cached_files(options_.folder);
  std::erase_if(files, [&](const CachedFile& file) { return file.path == path_; });
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.used < b.used; });
  int64_t used = needed, evicted = 0;
  for (const CachedFile& file : files) used += file.bytes;
  size_t evictions = 0;
  for (; used - evicted > options_.bytes_max; ++evictions) evicted += files[evictions].bytes;
  SW_TRY(check_disk(options_.folder, double(needed - evicted)));
  std::error_code error;
  for (size_t i = 0; i < evictions; ++i) {
    fs::remove(files[i].path, error);
    fs::remove(CheckStamp::path_of(files[i].path.string()), error);
  }
  return {};
}

Status PackedCache::write(std::span<const PackedSource> blobs, const StopWriting& stop) const {
  SW_TRY(make_folder(options_.folder));
  SW_ASSIGN(const FolderLock lock, FolderLock::take(options_.folder));
  remove_unfinished(options_.folder);
  SW_TRY(make_room(packed_file_bytes(identity_, blobs)));
  return write_packed_file(path_, identity_, blobs, stop);
}

}  // namespace spillway::weights
