#include "engine/batching/waiting_line.h"

#include <algorithm>
#include <unordered_set>

namespace spillway::engine {

void WaitingLine::add(WaitingInput input) {
  const int at = level(input.priority);
  const QueuePolicy& policy = policies_[at];
  if (!policy.timeout_override) input.deadline = TimePoint::max();
  if (policy.timeout_s > 0 && input.deadline == TimePoint::max()) {
    input.deadline = input.arrived + from_seconds(policy.timeout_s);
  }
  next_deadline_ = std::min(next_deadline_, input.deadline);
  ++size_[at];
  cost_[at] += input.cost;
  in_time_[at].push_back(input);
}

void WaitingLine::forget(const WaitingInput& input) {
  --size_[level(input.priority)];
  cost_[level(input.priority)] -= input.cost;
}

template <class Which>
std::vector<WaitingInput> WaitingLine::remove_if(Which which) {
  std::vector<WaitingInput> removed;
  for (auto* lines : {&in_time_, &delayed_}) {
    for (auto& line : *lines) {
      std::erase_if(line, [&](const WaitingInput& input) {
        if (!which(input)) return false;
        removed.push_back(input);
        return true;
      });
    }
  }
  for (const WaitingInput& input : removed) forget(input);
  return removed;
}

std::vector<WaitingInput> WaitingLine::cancel(OneShotId first, size_t count) {
  return remove_if([&](const WaitingInput& input) { return input.id >= first && input.id - first < count; });
}

std::vector<WaitingInput> WaitingLine::cancel_all() {
  return remove_if([](const WaitingInput&) { return true; });
}

std::vector<WaitingInput> WaitingLine::expire(TimePoint now) {
  if (now < next_deadline_) return {};
  std::vector<WaitingInput> expired = remove_if([&](const WaitingInput& input) { return input.deadline <= now; });
  std::erase_if(expired, [&](WaitingInput input) {
    const int at = level(input.priority);
    if (policies_[at].reject) return false;
    input.deadline = TimePoint::max();
    input.delayed = true;
    ++size_[at];
    cost_[at] += input.cost;
    delayed_[at].push_back(input);
    return true;
  });
  next_deadline_ = TimePoint::max();
  for (const auto& line : in_time_) {
    for (const WaitingInput& input : line) next_deadline_ = std::min(next_deadline_, input.deadline);
  }
  return expired;
}

WaitingLine::Choice WaitingLine::choose(int64_t cost_max, int inputs_max) const {
  Choice choice;
  int behind = 0;  // looked at since the first that did not fit
  for (int at = 2; at >= 0; --at) {
    for (const auto* line : {&in_time_[at], &delayed_[at]}) {
      for (const WaitingInput& input : *line) {
        const bool room = static_cast<int>(choice.inputs.size()) < inputs_max;
        if (!room || behind > kLookahead) {
          choice.full = true;
          return choice;
        }
        if (!choice.inputs.empty() && choice.cost + input.cost > cost_max) {
          choice.full = true;
          if (input.passed >= kPassesMax) return choice;
          ++behind;
          continue;
        }
        behind += behind > 0;
        choice.inputs.push_back(&input);
        choice.cost += input.cost;
        choice.deadline = std::min(choice.deadline, input.deadline);
      }
    }
  }
  choice.full |= static_cast<int>(choice.inputs.size()) >= inputs_max || choice.cost >= cost_max;
  return choice;
}

std::vector<WaitingInput> WaitingLine::take(const Choice& choice, size_t count) {
  std::vector<WaitingInput> taken;
  std::unordered_set<OneShotId> ids;
  for (size_t i = 0; i < count; ++i) {
    taken.push_back(*choice.inputs[i]);
    ids.insert(choice.inputs[i]->id);
  }
  size_t left = count;
  for (int at = 2; at >= 0 && left > 0; --at) {
    for (auto* line : {&in_time_[at], &delayed_[at]}) {
      size_t kept = 0, seen = 0;
      for (; seen < line->size() && left > 0; ++seen) {
        WaitingInput& input = (*line)[seen];
        if (ids.contains(input.id)) {
          --left;
          continue;
        }
        ++input.passed;
        (*line)[kept++] = input;
      }
      line->erase(line->begin() + static_cast<std::ptrdiff_t>(kept), line->begin() + static_cast<std::ptrdiff_t>(seen));
    }
  }
  for (const WaitingInput& input : taken) forget(input);
  return taken;
}

TimePoint WaitingLine::oldest() const {
  TimePoint oldest = TimePoint::max();
  for (const auto* lines : {&in_time_, &delayed_}) {
    for (const auto& line : *lines) {
      if (!line.empty()) oldest = std::min(oldest, line.front().arrived);
    }
  }
  return oldest;
}

}  // namespace spillway::engine
