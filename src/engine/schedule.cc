#include "engine/schedule.h"

#include <algorithm>
#include <numeric>

#include "kv/cache.h"

namespace spillway::engine {
namespace {

bool keeps_before(const SequenceView& a, const SequenceView& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
}

// Indices into view.running: those that decode, at most as many as the budget has rows; who waited longest comes first.
std::vector<int32_t> choose_decoders(const StepView& view) {
  std::vector<int32_t> chosen;
  for (size_t i = 0; i < view.running.size(); ++i) {
    if (view.running[i].decoding()) chosen.push_back(static_cast<int32_t>(i));
  }
  if (static_cast<int32_t>(chosen.size()) > view.budget_tokens) {
    std::ranges::sort(chosen, [&](int32_t i, int32_t j) {
      const SequenceView &a = view.running[i], &b = view.running[j];
      if (a.priority != b.priority) return a.priority > b.priority;
      return a.last_step != b.last_step ? a.last_step < b.last_step : a.arrival < b.arrival;
    });
    chosen.resize(view.budget_tokens);
  }
  std::ranges::sort(chosen, [&](int32_t i, int32_t j) { return keeps_before(view.running[i], view.running[j]); });
  return chosen;
}

class Planner {
 public:
  explicit Planner(const StepView& view)
      : view_(view), pages_(view.pages_available), budget_(view.budget_tokens), gone_(view.running.size(), false) {}

  StepPlan plan() {
    const auto decoders = choose_decoders(view_);
    int spare_rows = budget_ - static_cast<int>(decoders.size());
    for (const int32_t i : decoders) decode(i, spare_rows);
    prefill();
    return std::move(plan_);
  }

 private:
  int missing(const SequenceView& sequence, int rows) const {
    return std::max(0, kv::pages_for(sequence.computed + rows, view_.page_tokens) - sequence.pages);
  }

  void decode(int32_t i, int& spare_rows) {
    if (gone_[i]) return;
    const SequenceView& sequence = view_.running[i];
    int draft = std::min(sequence.draft, spare_rows);
    if (missing(sequence, 1 + draft) > pages_) draft = 0;  // a draft is not worth a preemption
    while (missing(sequence, 1) > pages_) {
      const int32_t victim = last_kept();
      preempt(victim);
      if (victim == i) return;
    }
    pages_ -= missing(sequence, 1 + draft);
    spare_rows -= draft;
    budget_ -= 1 + draft;
    plan_.slices.push_back({sequence.index, 1 + draft, draft});
  }

  // Never one that has its slice already: decoders come in the order in which sequences are kept.
  int32_t last_kept() const {
    int32_t last = -1;
    for (size_t i = 0; i < view_.running.size(); ++i) {
      if (!gone_[i] && (last < 0 || gives_way_before(view_.running[i], view_.running[last])))
        last = static_cast<int32_t>(i);
    }
    return last;
  }

  void preempt(int32_t i) {
    gone_[i] = true;
    pages_ += view_.running[i].pages_freed;
    plan_.preempted.push_back(view_.running[i].index);
  }

  void prefill() {
    int left = std::min(budget_, view_.prefill_tokens);
    std::vector<int32_t> order;
    for (size_t i = 0; i < view_.running.size(); ++i) {
      if (!gone_[i] && !view_.running[i].decoding()) order.push_back(static_cast<int32_t>(i));
    }
    std::ranges::sort(
        order, [&](int32_t i, int32_t j) { return more_urgent(view_.running[i], view_.running[j], view_.token_s); });
    for (const int32_t i : order) {
      if (left <= 0) break;
      const SequenceView& sequence = view_.running[i];
      int tokens = std::min(sequence.remaining(), left);
      if (sequence.chunk_max > 0) tokens = std::min(tokens, sequence.chunk_max);
      left -= tokens;
      plan_.slices.push_back({sequence.index, tokens, 0});
    }
  }

  const StepView& view_;
  int pages_;
  int budget_;
  std::vector<bool> gone_;
  StepPlan plan_;
};

}  // namespace

StepPlan plan_step(const StepView& view) { return Planner(view).plan(); }

bool more_urgent(const SequenceView& a, const SequenceView& b, double token_s) {
  if (a.priority != b.priority) return a.priority > b.priority;
  const double ratio_a = a.wait_s / (std::max(1, a.remaining()) * token_s);
  const double ratio_b = b.wait_s / (std::max(1, b.remaining()) * token_s);
  if (ratio_a != ratio_b) return ratio_a > ratio_b;
  return a.remaining() != b.remaining() ? a.remaining() < b.remaining() : a.arrival < b.arrival;
}

std::vector<int32_t> order_waiting(std::span<const SequenceView> waiting, double token_s) {
  std::vector<int32_t> order(waiting.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int32_t i, int32_t j) {
    const SequenceView &a = waiting[i], &b = waiting[j];
    if (a.priority == b.priority && (a.started || b.started))
      return a.started != b.started ? a.started : a.arrival < b.arrival;
    return more_urgent(a, b, token_s);
  });
  return order;
}

bool gives_way_before(const SequenceView& a, const SequenceView& b) {
  return a.priority != b.priority ? a.priority < b.priority : a.arrival > b.arrival;
}

std::vector<int32_t> choose_victims(std::span<const SequenceView> running, Priority priority, int slots, int pages) {
  std::vector<const SequenceView*> order;
  for (const SequenceView& sequence : running) {
    if (sequence.priority < priority) order.push_back(&sequence);
  }
  std::ranges::sort(order, [](const auto* a, const auto* b) { return gives_way_before(*a, *b); });
  std::vector<int32_t> victims;
  for (const SequenceView* sequence : order) {
    if (slots <= 0 && pages <= 0) break;
    --slots;
    pages -= sequence->pages_freed;
    victims.push_back(sequence->index);
  }
  if (slots > 0 || pages > 0) victims.clear();
  return victims;
}

}  // namespace spillway::engine
