// Progress: a bar on a terminal, a line every few seconds in a log. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace spillway::apps {

class Progress {
 public:
  enum class Unit { kBytes, kCount };
  Progress(std::string label, Unit unit);
  ~Progress();

  void update(int64_t done, int64_t total);
  void finish();  // leaves the terminal's line clean

 private:
  std::string label_;
  Unit unit_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point next_;
};

// "label  [=========>          ]  45%  1.2 GiB of 2.7 GiB"
std::string render_bar(const std::string& label, int64_t done, int64_t total, Progress::Unit unit);

}  // namespace spillway::apps
