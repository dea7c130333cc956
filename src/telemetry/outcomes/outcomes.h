// Outcomes: what came of the requests that were answered, by model, version, route, tenant and arm, over the last hour
// and the last day, with confidence intervals. A RequestSink that remembers requests, and the place where feedback
// finds them. Any thread. Not its job: HTTP, keys.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "telemetry/outcomes/feedback.h"
#include "telemetry/outcomes/journal.h"
#include "telemetry/outcomes/request_store.h"
#include "telemetry/outcomes/statistics.h"
#include "telemetry/request_record.h"

namespace spillway::telemetry {

// What became of feedback; name_of gives the metric's label.
enum class Verdict {
  kAccepted,
  kDuplicate,  // said before, the same
  kConflict,   // said before, otherwise; the first stays
  kUnknown,    // no such request: forged, or forgotten
  kLate,       // the request is older than the window
  kForbidden,  // the id was chosen by a client with another key
  kUnjudged,   // a label for a request whose prediction is not known
};
std::string_view name_of(Verdict verdict);

struct OutcomeOptions {
  size_t requests_max = 262144;
  double late_after_s = 24 * 3600;
  std::unique_ptr<Journal> journal;  // null: a restart forgets the requests
};

// Sums of one group over one stretch of time.
struct OutcomeSums {
  PairSums cost_conversion;  // of requests whose conversion was told: (cost, 1 or 0)
  double value = 0, value_squared = 0;
  double relevance_n = 0, ndcg = 0, ndcg_squared = 0, rr = 0, rr_squared = 0;
  double judged = 0, correct = 0;
  double thumbs = 0, thumbs_up = 0;
  void add(const OutcomeSums& other);
  double told() const { return cost_conversion.n + relevance_n + judged + thumbs; }
};

enum class Window { kHour, kDay };

class Outcomes final : public RequestSink {
 public:
  explicit Outcomes(OutcomeOptions options);  // remembers what the journal holds
  ~Outcomes() override;

  void record(const RequestRecord& request) override;  // generations alone
  Verdict apply(const Feedback& feedback, uint64_t caller, int64_t now_s);

  struct Group {
    std::string model, version, route, tenant, arm;
    auto operator<=>(const Group&) const = default;
  };
  std::vector<std::pair<Group, OutcomeSums>> sums(Window window, int64_t now_s) const;

  // Sets the gauges to what the windows hold now.
  void publish(int64_t now_s) const;

  // Writes to the journal what changed since the last call. One thread.
  void save();

 private:
  struct Ring;
  struct Book;
  uint32_t number_of(Group group);
  void note_change(const Remembered& request);
  void count(uint32_t group, const OutcomeSums& sums, int64_t now_s);

  const OutcomeOptions options_;
  RequestStore requests_;
  mutable std::mutex mutex_;
  std::map<Group, uint32_t> numbers_;
  std::vector<std::unique_ptr<Book>> books_;
  std::vector<Remembered> unsaved_;  // under mutex_; empty without a journal
};

}  // namespace spillway::telemetry
