// Coalescer: identical requests that are under way at the same time are asked once. The first to join leads and does
// the work; the others wait for its answer. When the leader gives up (its client left, its upstream failed), one of
// those who wait becomes the leader, so that nobody suffers for another's fate. For requests whose answer is determined
// by their text: embeddings. Any thread; callbacks run on the thread that completes or abandons, without a lock held.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace spillway::gateway {

template <class Answer>
class Coalescer {
 public:
  // Called once unless left before: with the answer, or with nullptr when the one called shall lead now.
  using Done = std::function<void(std::shared_ptr<const Answer>)>;

  struct Ticket {
    bool leads = false;
    uint64_t id = 0;  // of one that follows, for leave()
  };

  Ticket join(const std::string& key, Done done) {
    std::lock_guard lock(mutex_);
    const auto [group, is_new] = groups_.try_emplace(key);
    if (is_new) return {true, 0};
    group->second.push_back({++last_id_, std::move(done)});
    return {false, last_id_};
  }

  // By the leader.
  void complete(const std::string& key, std::shared_ptr<const Answer> answer) {
    std::vector<Waiting> waiting;
    {
      std::lock_guard lock(mutex_);
      const auto group = groups_.find(key);
      if (group == groups_.end()) return;
      waiting = std::move(group->second);
      groups_.erase(group);
    }
    for (Waiting& one : waiting) one.done(answer);
  }

  // By the leader, without an answer.
  void abandon(const std::string& key) {
    Done next;
    {
      std::lock_guard lock(mutex_);
      const auto group = groups_.find(key);
      if (group == groups_.end()) return;
      if (group->second.empty()) {
        groups_.erase(group);
        return;
      }
      next = std::move(group->second.front().done);
      group->second.erase(group->second.begin());
    }
    next(nullptr);
  }

  // By one that follows and whose client left: its callback is not called any more, unless it is being called now.
  void leave(const std::string& key, uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto group = groups_.find(key);
    if (group == groups_.end()) return;
    std::erase_if(group->second, [&](const Waiting& one) { return one.id == id; });
  }

  size_t groups() const {
    std::lock_guard lock(mutex_);
    return groups_.size();
  }

 private:
  struct Waiting {
    uint64_t id;
    Done done;
  };
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::vector<Waiting>> groups_;  // a key is here while somebody leads
  uint64_t last_id_ = 0;
};

}  // namespace spillway::gateway
