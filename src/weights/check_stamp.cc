#include "weights/check_stamp.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>

namespace spillway::weights {
namespace {

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace

CheckStamp::CheckStamp(const std::string& path) : note_(path_of(path)) {
  struct stat info {};
  const std::string boot = read_text("/proc/sys/kernel/random/boot_id");
  if (boot.empty() || ::stat(path.c_str(), &info) != 0) return;
  text_ = fmt::format("checked in boot {}inode {} of {} bytes, changed {}.{:09} s\n", boot, info.st_ino, info.st_size,
                      info.st_ctim.tv_sec, info.st_ctim.tv_nsec);
}

bool CheckStamp::valid() const { return !text_.empty() && read_text(note_) == text_; }

void CheckStamp::renew() const {
  if (text_.empty()) return;
  if (valid()) {
    ::utimensat(AT_FDCWD, note_.c_str(), nullptr, 0);
    return;
  }
  const std::string unfinished = fmt::format("{}-{}", note_, ::getpid());
  {
    std::ofstream out(unfinished, std::ios::binary);
    out << text_;
    if (!out.flush()) return void(::unlink(unfinished.c_str()));
  }
  if (::rename(unfinished.c_str(), note_.c_str()) != 0) ::unlink(unfinished.c_str());
}

}  // namespace spillway::weights
