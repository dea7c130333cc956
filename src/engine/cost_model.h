// CostModel: how long a step takes, learned from the steps themselves: base + decode rows * row + prefill tokens *
// token. Least squares over recent steps (older ones fade). Plain values; the engine's thread updates it, admission
// reads copies.
#pragma once

#include <array>
#include <string>

namespace spillway::engine {

struct StepCost {
  double base_s = 0;   // any step
  double row_s = 0;    // each decode row (a draft is one more row)
  double token_s = 0;  // each prefill token
  bool measured = false;

  double step_s(double rows, double tokens) const { return base_s + row_s * rows + token_s * tokens; }
};

// As a line for a later start, and from a text with such a line: not measured where there is none of sense.
std::string to_text(const StepCost& cost);
StepCost parse_step_cost(const std::string& text);

class CostModel {
 public:
  // What an earlier start learned: holds until as many steps of this one were seen.
  void remember(const StepCost& cost);
  void observe(int decode_rows, int prefill_tokens, double step_s);
  const StepCost& cost() const { return cost_; }
  // Worth telling a later start.
  bool settled() const { return steps_ >= kSettled; }

 private:
  static constexpr int kSettled = 64;  // steps

  void solve();

  std::array<std::array<double, 3>, 3> products_{};  // sums of x x', fading
  std::array<double, 3> targets_{};                  // sums of x t
  int steps_ = 0;
  bool remembered_ = false;
  StepCost cost_;
};

// Events per second of busy time, the recent past counting most.
class Rate {
 public:
  void observe(double events, double busy_s);
  double per_s() const { return seconds_ > 0 ? events_ / seconds_ : 0; }
  // Enough has been seen to act on.
  bool measured() const { return seconds_ > 0.5 && events_ >= 1; }

 private:
  double events_ = 0;
  double seconds_ = 0;
};

}  // namespace spillway::engine
