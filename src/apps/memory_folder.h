// MemoryFolder: bytes of this process as a folder that other code opens by path: a temporary folder whose files are
// links to memory. It goes with this object; what was mapped from it stays valid.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace spillway::apps {

class MemoryFolder {
 public:
  using File = std::pair<const char*, std::string_view>;  // name and bytes
  static Result<MemoryFolder> create(const std::vector<File>& files);
  MemoryFolder(MemoryFolder&& other) noexcept;
  MemoryFolder& operator=(MemoryFolder&&) = delete;
  ~MemoryFolder();

  const std::string& path() const { return path_; }

 private:
  MemoryFolder() = default;
  Status add(const char* name, std::string_view bytes);

  std::string path_;
  std::vector<std::string> links_;
  std::vector<int> descriptors_;
};

}  // namespace spillway::apps
