#include "apps/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "apps/system.h"
#include "base/log.h"

namespace spillway::apps {
namespace {

constexpr auto kTerminalInterval = std::chrono::milliseconds(50);
constexpr auto kLogInterval = std::chrono::seconds(5);

std::string amount(int64_t value, Progress::Unit unit) {
  return unit == Progress::Unit::kBytes ? format_bytes(value) : std::to_string(value);
}

}  // namespace

std::string render_bar(const std::string& label, int64_t done, int64_t total, Progress::Unit unit) {
  constexpr int kWidth = 30;
  if (total <= 0) return fmt::format("{}  {}", label, amount(done, unit));
  const double share = std::clamp(double(done) / double(total), 0.0, 1.0);
  const int filled = int(share * kWidth);
  std::string bar(size_t(filled), '=');
  if (filled < kWidth) bar += '>';
  return fmt::format("{}  [{:<{}}] {:3.0f}%  {} of {}", label, bar, kWidth, share * 100, amount(done, unit),
                     amount(total, unit));
}

Progress::Progress(std::string label, Unit unit)
    : label_(std::move(label)),
      unit_(unit),
      terminal_(is_terminal(STDERR_FILENO)),
      next_(std::chrono::steady_clock::now()) {
  if (!terminal_) next_ += kLogInterval;
}

Progress::~Progress() { finish(); }

void Progress::update(int64_t done, int64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s", render_bar(label_, done, total, unit_).c_str());
    std::fflush(stderr);
    drawn_ = true;
    next_ = now + kTerminalInterval;
  } else {
    SW_INFO("{}", render_bar(label_, done, total, unit_));
    next_ = now + kLogInterval;
  }
}

void Progress::finish() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace spillway::apps
