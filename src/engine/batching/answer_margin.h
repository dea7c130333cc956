// AnswerMargin: how much later than predicted answers come, but for one in a thousand. Followed batch by batch: it
// grows by up to a batch's time where a batch's answers were later, and shrinks a little where none was. Admission adds
// it to its predictions, so that what it lets in is seldom late. A value; the engine's thread.
#pragma once

#include <algorithm>

namespace spillway::engine {

class AnswerMargin {
 public:
  static constexpr double kLateShare = 0.001;  // of the answers that may be later than predicted with the margin
  static constexpr double kBatchesMax = 8;     // the margin's bound, in batches

  // late: of the inputs that ended, how many came later than predicted and this margin.
  void add(int late, int inputs, double batch_s) {
    if (inputs <= 0) return;
    margin_s_ += batch_s * (static_cast<double>(late) / inputs - kLateShare);
    margin_s_ = std::clamp(margin_s_, 0.0, kBatchesMax * batch_s);
  }
  double seconds() const { return margin_s_; }

 private:
  double margin_s_ = 0;
};

}  // namespace spillway::engine
