#include "telemetry/outcomes/outcomes.h"

#include <chrono>
#include <cmath>

#include "base/log.h"
#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

using metrics::Counter;
using metrics::Gauge;
using metrics::Layer;
using Labels = std::vector<std::string>;

const Labels kGroup = {"model", "version", "route", "tenant", "arm"};
const Labels kOutcome = {"model", "version", "route", "tenant", "arm", "outcome"};
// bound: estimate, and low and high of the 95% confidence interval. window: 1h or 24h.
const Labels kMeasured = {"model", "version", "route", "tenant", "arm", "window", "bound"};
constexpr Layer kLayer = Layer::kBusiness;

Counter feedback_total("spillway_business_feedback_total", "Feedback by what became of it.", {"result"}, kLayer);
Counter outcomes_total("spillway_business_outcomes_total",
                       "Outcomes told: conversion, no_conversion, relevance, correct, wrong, thumbs_up, thumbs_down.",
                       kOutcome, kLayer);
Gauge value_sum("spillway_business_conversion_value", "Value of all conversions since the start, in your currency.",
                kGroup, kLayer);
Counter cost_total("spillway_business_cost_dollars_total", "Price of the answers, as the upstreams ask it.", kGroup,
                   kLayer);
Gauge conversion("spillway_business_conversion_ratio", "Conversions over requests with a known outcome.", kMeasured,
                 kLayer);
Gauge value_mean("spillway_business_value_per_request", "Value over requests with a known outcome.", kMeasured, kLayer);
Gauge ndcg_mean("spillway_business_ndcg_ratio", "Mean nDCG of ranked results.", kMeasured, kLayer);
Gauge mrr("spillway_business_mrr_ratio", "Mean reciprocal rank of the first relevant result.", kMeasured, kLayer);
Gauge accuracy("spillway_business_accuracy_ratio", "Correct answers over judged ones.", kMeasured, kLayer);
Gauge thumbs("spillway_business_thumbs_up_ratio", "Thumbs up over thumbs.", kMeasured, kLayer);
Gauge cost_per("spillway_business_cost_per_conversion_dollars", "Price of the answers over conversions.", kMeasured,
               kLayer);
Gauge samples("spillway_business_outcome_samples", "Feedback in the window, of all kinds together.",
              {"model", "version", "route", "tenant", "arm", "window"}, kLayer);

// So many that all their series stay within a metric's bound; the rest is counted together.
constexpr size_t kGroupsMax = 160;

struct WindowShape {
  int64_t slice_s;
  size_t slices;
};
constexpr WindowShape kShapes[] = {{60, 60}, {900, 96}};
constexpr const char* kWindowNames[] = {"1h", "24h"};

int64_t unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void set(Gauge& gauge, const Outcomes::Group& g, const char* window, const Estimate& estimate) {
  const auto one = [&](const char* bound, double value) {
    gauge.with({g.model, g.version, g.route, g.tenant, g.arm, window, bound}).set(value);
  };
  one("estimate", estimate.value);
  one("low", estimate.low);
  one("high", estimate.high);
}

// Feedback that the request had already, or marks it as had.
bool take(Remembered& request, Measure measure, uint32_t mark, bool& same, bool& other) {
  uint32_t& given = request.given[size_t(measure)];
  if (given != 0) {
    (given == mark ? same : other) = true;
    return false;
  }
  given = mark;
  return true;
}

uint32_t grades_mark(const std::vector<double>& grades) {
  return text_mark({reinterpret_cast<const char*>(grades.data()), grades.size() * sizeof(double)});
}

// Counts what is new of the feedback and marks the request with it.
Verdict judge(const Feedback& feedback, Remembered& request, OutcomeSums& sums) {
  std::optional<bool> correct = feedback.correct;
  if (feedback.label) {
    const uint32_t predicted = feedback.predicted ? text_mark(*feedback.predicted) : request.predicted;
    if (predicted == 0) return Verdict::kUnjudged;
    correct = predicted == text_mark(*feedback.label);
  }
  bool same = false, other = false, fresh = false;
  if (feedback.converted) {
    const double said[] = {*feedback.converted ? 1.0 : 0.0, feedback.value};
    if (take(request, Measure::kConversion, grades_mark({said[0], said[1]}), same, other)) {
      sums.cost_conversion.add(request.cost, said[0]);
      sums.value = feedback.value;
      sums.value_squared = feedback.value * feedback.value;
      fresh = true;
    }
  }
  if (!feedback.grades.empty() && take(request, Measure::kRelevance, grades_mark(feedback.grades), same, other)) {
    sums.relevance_n = 1;
    sums.ndcg = ndcg(feedback.grades);
    sums.ndcg_squared = sums.ndcg * sums.ndcg;
    sums.rr = reciprocal_rank(feedback.grades);
    sums.rr_squared = sums.rr * sums.rr;
    fresh = true;
  }
  if (correct && take(request, Measure::kCorrect, *correct ? 1 : 2, same, other)) {
    sums.judged = 1;
    sums.correct = *correct ? 1 : 0;
    fresh = true;
  }
  if (feedback.thumbs_up && take(request, Measure::kThumbs, *feedback.thumbs_up ? 1 : 2, same, other)) {
    sums.thumbs = 1;
    sums.thumbs_up = *feedback.thumbs_up ? 1 : 0;
    fresh = true;
  }
  return other ? Verdict::kConflict : fresh ? Verdict::kAccepted : Verdict::kDuplicate;
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAccepted:
      return "accepted";
    case Verdict::kDuplicate:
      return "duplicate";
    case Verdict::kConflict:
      return "conflict";
    case Verdict::kUnknown:
      return "unknown";
    case Verdict::kLate:
      return "late";
    case Verdict::kForbidden:
      return "forbidden";
    case Verdict::kUnjudged:
      return "unjudged";
  }
  return "unknown";
}

void OutcomeSums::add(const OutcomeSums& other) {
  cost_conversion.add(other.cost_conversion);
  value += other.value;
  value_squared += other.value_squared;
  relevance_n += other.relevance_n;
  ndcg += other.ndcg;
  ndcg_squared += other.ndcg_squared;
  rr += other.rr;
  rr_squared += other.rr_squared;
  judged += other.judged;
  correct += other.correct;
  thumbs += other.thumbs;
  thumbs_up += other.thumbs_up;
}

// Slices of time, each taken over by a later one when its turn comes.
struct Outcomes::Ring {
  struct Slice {
    int64_t number = -1;
    OutcomeSums sums;
  };
  explicit Ring(WindowShape given) : shape(given), slices(given.slices) {}

  OutcomeSums& at(int64_t now_s) {
    const int64_t number = now_s / shape.slice_s;
    Slice& slice = slices[size_t(number) % slices.size()];
    if (slice.number != number) slice = {number, {}};
    return slice.sums;
  }
  OutcomeSums total(int64_t now_s) const {
    const int64_t last = now_s / shape.slice_s;
    OutcomeSums all;
    for (const Slice& slice : slices) {
      if (slice.number > last - int64_t(slices.size()) && slice.number <= last) all.add(slice.sums);
    }
    return all;
  }

  const WindowShape shape;
  std::vector<Slice> slices;
};

struct Outcomes::Book {
  explicit Book(Group of) : group(std::move(of)) {}
  const Group group;
  OutcomeSums since_start;
  Ring rings[2] = {Ring(kShapes[0]), Ring(kShapes[1])};
};

Outcomes::Outcomes(OutcomeOptions options) : options_(std::move(options)), requests_(options_.requests_max) {
  if (!options_.journal) return;
  const Status replayed = options_.journal->replay([this](const JournalPage& page) {
    std::vector<uint32_t> numbers;
    for (const auto& g : page.groups) numbers.push_back(number_of({g[0], g[1], g[2], g[3], g[4]}));
    for (Remembered request : page.requests) {
      request.group = numbers[request.group];
      requests_.add(request);
    }
  });
  if (!replayed.ok()) SW_WARN("feedback journal: {}", replayed.error().message);
}

Outcomes::~Outcomes() { save(); }

uint32_t Outcomes::number_of(Group group) {
  std::lock_guard lock(mutex_);
  if (numbers_.size() >= kGroupsMax && !numbers_.contains(group)) group = {"other", "other", "other", "other", "other"};
  const auto [at, is_new] = numbers_.try_emplace(group, uint32_t(books_.size()));
  if (is_new) books_.push_back(std::make_unique<Book>(at->first));
  return at->second;
}

void Outcomes::note_change(const Remembered& request) {
  if (!options_.journal) return;
  std::lock_guard lock(mutex_);
  // While the disk takes nothing, what is not remembered anyway need not wait.
  if (unsaved_.size() < options_.requests_max) unsaved_.push_back(request);
}

void Outcomes::save() {
  if (!options_.journal) return;
  JournalPage page;
  {
    std::lock_guard lock(mutex_);
    if (unsaved_.empty()) return;
    page.requests.swap(unsaved_);
    for (const auto& book : books_) {
      const Group& g = book->group;
      page.groups.push_back({g.model, g.version, g.route, g.tenant, g.arm});
    }
  }
  const Status saved = options_.journal->append(page);
  if (saved.ok()) return;
  SW_WARN("feedback journal: {}", saved.error().message);
  std::lock_guard lock(mutex_);
  const size_t room = options_.requests_max - std::min(options_.requests_max, unsaved_.size());
  const size_t kept = std::min(room, page.requests.size());
  unsaved_.insert(unsaved_.begin(), page.requests.end() - ptrdiff_t(kept), page.requests.end());
}

void Outcomes::record(const RequestRecord& request) {
  if (request.operation.empty() || request.status / 100 != 2) return;
  Remembered remembered;
  remembered.key = request_key(request.id);
  remembered.caller = request.caller;
  remembered.group = number_of({request.answered_by.empty() ? request.model : request.answered_by, request.version,
                                request.route, request.tenant, request.arm});
  remembered.finished_s = uint32_t(unix_s());
  remembered.cost = float(request.cost);
  remembered.id_is_ours = request.id_is_ours;
  remembered.predicted = request.predicted.empty() ? 0 : text_mark(request.predicted);
  requests_.add(remembered);
  note_change(remembered);
  if (request.cost <= 0) return;
  std::lock_guard lock(mutex_);
  const Group& g = books_[remembered.group]->group;
  cost_total.with({g.model, g.version, g.route, g.tenant, g.arm}).add(request.cost);
}

Verdict Outcomes::apply(const Feedback& feedback, uint64_t caller, int64_t now_s) {
  OutcomeSums sums;
  uint32_t group = 0;
  Verdict verdict = Verdict::kAccepted;
  Remembered changed;
  const bool known = requests_.visit(request_key(feedback.request_id), [&](Remembered& request) {
    group = request.group;
    if (now_s - int64_t(request.finished_s) > int64_t(options_.late_after_s)) {
      verdict = Verdict::kLate;
      return;
    }
    if (!request.id_is_ours && request.caller != caller) {
      verdict = Verdict::kForbidden;
      return;
    }
    verdict = judge(feedback, request, sums);
    changed = request;
  });
  if (!known) verdict = Verdict::kUnknown;
  feedback_total.with({name_of(verdict)}).add();
  if (sums.told() > 0) note_change(changed);
  count(group, sums, now_s);
  return verdict;
}

void Outcomes::count(uint32_t group, const OutcomeSums& sums, int64_t now_s) {
  if (sums.told() == 0) return;
  std::lock_guard lock(mutex_);
  Book& book = *books_[group];
  book.since_start.add(sums);
  for (Ring& ring : book.rings) ring.at(now_s).add(sums);
  const Group& g = book.group;
  const auto outcome = [&](const char* name, double times) {
    if (times > 0) outcomes_total.with({g.model, g.version, g.route, g.tenant, g.arm, name}).add(times);
  };
  outcome("conversion", sums.cost_conversion.y);
  outcome("no_conversion", sums.cost_conversion.n - sums.cost_conversion.y);
  outcome("relevance", sums.relevance_n);
  outcome("correct", sums.correct);
  outcome("wrong", sums.judged - sums.correct);
  outcome("thumbs_up", sums.thumbs_up);
  outcome("thumbs_down", sums.thumbs - sums.thumbs_up);
  if (sums.value != 0) value_sum.with({g.model, g.version, g.route, g.tenant, g.arm}).add(sums.value);
}

std::vector<std::pair<Outcomes::Group, OutcomeSums>> Outcomes::sums(Window window, int64_t now_s) const {
  std::vector<std::pair<Group, OutcomeSums>> all;
  std::lock_guard lock(mutex_);
  for (const auto& book : books_) all.emplace_back(book->group, book->rings[size_t(window)].total(now_s));
  return all;
}

// A series that was set once stays; where its window has nothing any more it is "not a number".
void Outcomes::publish(int64_t now_s) const {
  std::lock_guard lock(mutex_);
  for (const auto& book : books_) {
    const OutcomeSums& told = book->since_start;
    for (const Window window : {Window::kHour, Window::kDay}) {
      const char* name = kWindowNames[size_t(window)];
      const OutcomeSums s = book->rings[size_t(window)].total(now_s);
      const Group& g = book->group;
      if (told.cost_conversion.n > 0) {
        set(conversion, g, name, proportion(s.cost_conversion.y, s.cost_conversion.n));
        set(value_mean, g, name, mean(s.cost_conversion.n, s.value, s.value_squared));
        set(cost_per, g, name, ratio(s.cost_conversion));
      }
      if (told.relevance_n > 0) {
        set(ndcg_mean, g, name, mean(s.relevance_n, s.ndcg, s.ndcg_squared));
        set(mrr, g, name, mean(s.relevance_n, s.rr, s.rr_squared));
      }
      if (told.judged > 0) set(accuracy, g, name, proportion(s.correct, s.judged));
      if (told.thumbs > 0) set(thumbs, g, name, proportion(s.thumbs_up, s.thumbs));
      if (told.told() > 0) samples.with({g.model, g.version, g.route, g.tenant, g.arm, name}).set(s.told());
    }
  }
}

}  // namespace spillway::telemetry
