// The embedded tiny-r1: its files as bytes of the program, and as a folder that the loader can open like any checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/memory_file.h"
#include "base/result.h"

namespace spillway::apps {

std::string_view builtin_evaluation();  // evaluation.json
int64_t builtin_weight_bytes();

// A temporary folder whose files are links to memory of this process; removed with this object. What was mapped from it
// stays valid.
class BuiltinFolder {
 public:
  static Result<BuiltinFolder> create();
  BuiltinFolder(BuiltinFolder&& other) noexcept;
  BuiltinFolder& operator=(BuiltinFolder&&) = delete;
  ~BuiltinFolder();

  const std::string& path() const { return path_; }

 private:
  BuiltinFolder() = default;
  Status add(const char* name, std::string_view bytes);

  std::string path_;
  std::vector<std::string> links_;
  std::vector<MemoryFile> files_;
};

}  // namespace spillway::apps
