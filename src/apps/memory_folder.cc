#include "apps/memory_folder.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace spillway::apps {
namespace {

Error failed(const std::string& what) {
  return {ErrorCode::kUnavailable, fmt::format("{}: {}", what, std::strerror(errno))};
}

// A folder that only this user can read, in the first place that takes one.
Result<std::string> make_folder() {
  const char* preferred = std::getenv("TMPDIR");
  for (const char* parent : {preferred, "/tmp", "/dev/shm", "/var/tmp"}) {
    if (!parent || !*parent) continue;
    std::string path = std::string(parent) + "/spillway-XXXXXX";
    if (mkdtemp(path.data())) return path;
  }
  return failed("expected a place for a temporary folder (set TMPDIR), found none");
}

}  // namespace

Result<MemoryFolder> MemoryFolder::create(const std::vector<File>& files) {
  MemoryFolder folder;
  SW_ASSIGN(folder.path_, make_folder());
  for (const auto& [name, bytes] : files) SW_TRY(folder.add(name, bytes));
  return folder;
}

Status MemoryFolder::add(const char* name, std::string_view bytes) {
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0) return failed("memfd_create");
  descriptors_.push_back(fd);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = write(fd, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno != EINTR) return failed(std::string("writing to memory: ") + name);
    if (written > 0) done += size_t(written);
  }
  const std::string link = path_ + "/" + name;
  if (symlink(fmt::format("/proc/{}/fd/{}", getpid(), fd).c_str(), link.c_str()) != 0) return failed(link);
  links_.push_back(link);
  return {};
}

MemoryFolder::MemoryFolder(MemoryFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      links_(std::exchange(other.links_, {})),
      descriptors_(std::exchange(other.descriptors_, {})) {}

MemoryFolder::~MemoryFolder() {
  for (const auto& link : links_) unlink(link.c_str());
  for (const int fd : descriptors_) close(fd);
  if (!path_.empty()) rmdir(path_.c_str());
}

}  // namespace spillway::apps
