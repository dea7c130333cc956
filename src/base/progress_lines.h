// ProgressLines: what the log says of a count that takes long, a line a second at most. Of one thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"

namespace spillway {

class ProgressLines {
 public:
  ProgressLines(std::string what, int64_t total, const Clock& clock)
      : what_(std::move(what)), total_(total), clock_(clock), said_(clock.now()) {}

  // One more is done. The line that is due, or none.
  std::optional<std::string> step() {
    ++done_;
    const TimePoint now = clock_.now();
    if (now - said_ < std::chrono::seconds(1)) return {};
    said_ = now;
    return fmt::format("{}: {} of {}", what_, done_, total_);
  }

 private:
  const std::string what_;
  const int64_t total_;
  const Clock& clock_;
  TimePoint said_;
  int64_t done_ = 0;
};

}  // namespace spillway
