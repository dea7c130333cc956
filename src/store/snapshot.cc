#include "store/snapshot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/log.h"
#include "store/digest.h"

namespace spillway::store {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifest = ".manifest";
constexpr const char* kPartial = ".partial";

std::string line_of(const Object& object) { return fmt::format("{}\t{}\t{}", object.name, object.size, object.etag); }

std::string manifest_of(std::vector<Object> objects) {
  std::ranges::sort(objects, {}, &Object::name);
  std::string text;
  for (const Object& object : objects) text += line_of(object) + "\n";
  return text;
}

Status write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.flush();
  return out ? Status() : Status(Error{ErrorCode::kResourceExhausted, path + ": cannot be written"});
}

// Held while the cache is being filled; gone with the process.
class Lock {
 public:
  static Result<Lock> take(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return Error{ErrorCode::kResourceExhausted, path + ": " + std::strerror(errno)};
    Lock lock(fd);
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
    SW_INFO("{}: another program is filling this cache; waiting for it", path);
    while (::flock(fd, LOCK_EX) != 0) {
      if (errno != EINTR) return Error{ErrorCode::kResourceExhausted, path + ": " + std::strerror(errno)};
    }
    return lock;
  }
  ~Lock() {
    if (fd_ >= 0) ::close(fd_);
  }
  Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Lock& operator=(Lock&&) = delete;

 private:
  explicit Lock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace

SnapshotCache::SnapshotCache(const std::string& cache_dir, const std::string& name) : base_(cache_dir + "/" + name) {}

std::string SnapshotCache::identity_of(const std::vector<Object>& objects) {
  Digest digest(Digest::Kind::kSha256);
  digest.update(manifest_of(objects));
  return digest.hex().substr(0, 16);
}

Result<std::string> SnapshotCache::fetch(Store& store, const std::vector<Object>& objects, const StoreOptions& options,
                                         const DownloadProgress& progress) {
  std::error_code error;
  fs::create_directories(base_, error);
  if (error) return Error{ErrorCode::kResourceExhausted, base_ + ": " + error.message()};
  SW_ASSIGN(const Lock lock, Lock::take(base_ + "/lock"));
  const std::string identity = identity_of(objects), folder = base_ + "/" + identity;
  if (!fs::exists(folder, error)) {
    int64_t bytes = 0;
    for (const Object& object : objects) bytes += object.size;
    const std::string work = folder + kPartial;
    const bool begun = fs::exists(work, error);
    const auto space = fs::space(base_, error);
    if (!begun && !error && static_cast<int64_t>(space.available) < bytes) {
      return Error{ErrorCode::kResourceExhausted,
                   fmt::format("{}: expected {:.1f} MiB of free disk for the model, found {:.1f}", base_,
                               double(bytes) / (1 << 20), double(space.available) / (1 << 20))};
    }
    fs::create_directories(work, error);
    if (error) return Error{ErrorCode::kResourceExhausted, work + ": " + error.message()};
    link_common(objects, work);
    SW_TRY(download(store, objects, work, options, progress));
    SW_TRY(write_file(work + "/" + kManifest, manifest_of(objects)));
    if (::rename(work.c_str(), folder.c_str()) != 0)
      return Error{ErrorCode::kResourceExhausted, folder + ": " + std::strerror(errno)};
  }
  SW_TRY(write_file(base_ + "/latest.part", identity));
  if (::rename((base_ + "/latest.part").c_str(), (base_ + "/latest").c_str()) != 0) {
    return Error{ErrorCode::kResourceExhausted, base_ + "/latest: " + std::strerror(errno)};
  }
  remove_others(identity);
  return folder;
}

Result<SnapshotCache::Kept> SnapshotCache::latest() const {
  std::ifstream in(base_ + "/latest");
  std::string identity;
  std::error_code error;
  if (!std::getline(in, identity) || identity.size() != 16 ||
      !fs::exists(fs::path(base_) / identity / kManifest, error)) {
    return not_found(base_ + ": no copy is complete");
  }
  return Kept{base_ + "/" + identity, identity};
}

// Hard links to the files of the last state that are the same in this one.
void SnapshotCache::link_common(const std::vector<Object>& objects, const std::string& into) const {
  const auto kept = latest();
  if (!kept.ok()) return;
  std::map<std::string, std::string> lines;
  std::ifstream in(kept->folder + "/" + kManifest);
  for (std::string line; std::getline(in, line);) lines[line.substr(0, line.find('\t'))] = line;
  for (const Object& object : objects) {
    const auto found = lines.find(object.name);
    if (object.etag.empty() || found == lines.end() || found->second != line_of(object)) continue;
    std::error_code error;
    fs::create_directories((fs::path(into) / object.name).parent_path(), error);
    fs::create_hard_link(fs::path(kept->folder) / object.name, fs::path(into) / object.name, error);
  }
}

// Whoever has an old file mapped keeps it.
void SnapshotCache::remove_others(const std::string& identity) const {
  std::error_code error;
  std::vector<std::pair<fs::file_time_type, fs::path>> others;
  for (const auto& one : fs::directory_iterator(base_, error)) {
    if (!one.is_directory(error) || one.path().filename() == identity) continue;
    if (one.path().extension() == kPartial)
      fs::remove_all(one.path(), error);
    else
      others.emplace_back(one.last_write_time(error), one.path());
  }
  std::ranges::sort(others, std::ranges::greater());
  for (size_t i = 1; i < others.size(); ++i) fs::remove_all(others[i].second, error);
}

}  // namespace spillway::store
