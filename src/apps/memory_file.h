// MemoryFile: bytes in memory that other code opens by path. The path is this process's own.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::apps {

class MemoryFile {
 public:
  static Result<MemoryFile> create(const char* name, std::string_view bytes);
  MemoryFile(MemoryFile&& other) noexcept;
  MemoryFile& operator=(MemoryFile&& other) noexcept;
  ~MemoryFile();

  std::string path() const;

 private:
  explicit MemoryFile(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace spillway::apps
