// ReadingBudget: how often each kind of reading may be taken so that all of them together cost no more than a share of
// a core. Costs are measured as readings are taken. Costly kinds come rarer: periods go with the square root of the
// cost, which makes the sum of ages least for the money. Plain arithmetic; the caller's thread and clock.
#pragma once

#include <cstddef>
#include <vector>

#include "base/clock.h"

namespace spillway::telemetry {

class ReadingBudget {
 public:
  // share: of a core. weights: what it is worth that a kind is fresh, one for each; units: how many of each there are
  // (GPUs).
  ReadingBudget(double share, std::vector<double> weights, size_t units);

  bool is_due(size_t kind, size_t unit, TimePoint now) const;
  void note(size_t kind, size_t unit, TimePoint now, double cpu_s);

  // Seconds between two readings of a kind; 0: as often as asked.
  double period_s(size_t kind) const;

 private:
  struct Kind {
    double weight = 1;
    double cost_s = 0;  // of one reading, a moving mean; 0: not known
    std::vector<TimePoint> taken;
  };
  const double share_;
  std::vector<Kind> kinds_;
};

}  // namespace spillway::telemetry
