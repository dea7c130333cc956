#include "apps/memory_file.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace spillway::apps {

Result<MemoryFile> MemoryFile::create(const char* name, std::string_view bytes) {
  MemoryFile file(memfd_create(name, MFD_CLOEXEC));
  if (file.fd_ < 0) return Error{ErrorCode::kUnavailable, fmt::format("{}: memfd_create: {}", name, std::strerror(errno))};
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = write(file.fd_, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno != EINTR) return Error{ErrorCode::kUnavailable, fmt::format("{}: writing to memory: {}", name, std::strerror(errno))};
    if (written > 0) done += size_t(written);
  }
  return file;
}

MemoryFile::MemoryFile(MemoryFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

MemoryFile& MemoryFile::operator=(MemoryFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

MemoryFile::~MemoryFile() {
  if (fd_ >= 0) close(fd_);
}

std::string MemoryFile::path() const { return fmt::format("/proc/{}/fd/{}", getpid(), fd_); }

}  // namespace spillway::apps
