// AccessLog: one line of JSON for each request the gateway answered, to a file or standard output. A disk that is full
// loses lines, never requests. Any thread.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::gateway {

class AccessLog {
 public:
  static Result<std::unique_ptr<AccessLog>> open(const std::string& path);  // "-": standard output; empty: nowhere
  ~AccessLog();
  bool on() const { return file_ != nullptr; }
  void write(std::string_view line);

 private:
  explicit AccessLog(std::FILE* file) : file_(file) {}
  std::mutex mutex_;
  std::FILE* const file_;
};

}  // namespace spillway::gateway
