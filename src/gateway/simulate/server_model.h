// ServerModel: one server of a simulated fleet. Requests wait by priority, then run, at most concurrency_max at once:
// first their prompt is computed, one prompt at a time at the prefill rate; then they decode side by side, each at the
// rate for that many streams, slower while a prompt is being computed. Shared prefixes stay in a cache. Time moves only
// by advance(); deterministic.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "gateway/simulate/fleet.h"
#include "gateway/simulate/trace.h"

namespace spillway::gateway {

class ServerModel {
 public:
  explicit ServerModel(const ServerDescription& description) : description_(description) {}

  struct Progress {
    size_t request;
    enum { kFirstToken, kDone } what;
    int64_t cached_tokens;  // of a first token
  };

  // False: its queue is full.
  bool submit(size_t request, const TraceRequest& facts);

  // Seconds until something of progress happens if nothing else comes; nothing while idle.
  std::optional<double> next_in() const;

  // Lets the time pass (at most next_in()) and appends what happened at its end.
  void advance(double dt, std::vector<Progress>& progress);

  // Everything here is lost, its requests are appended; caches too.
  void crash(std::vector<size_t>& lost);

  // Removes a request that has not begun to run; false when it is not waiting.
  bool withdraw(size_t request);

  LoadReport report(TimePoint now) const;

 private:
  struct Job {
    size_t request;
    int priority;
    double prompt_left;
    double output_left;
    int64_t prefix_id, prefix_tokens;
    int64_t cached_tokens;
  };

  void start_waiting();
  Job* prefilling();
  double decode_rate() const;  // of each decoding stream now
  int decoding() const;
  bool in_cache(int64_t prefix_id);
  void keep(int64_t prefix_id, int64_t tokens);

  const ServerDescription& description_;
  std::deque<Job> waiting_;                       // by priority, then as they came
  std::vector<Job> running_;                      // as they were started
  std::list<std::pair<int64_t, int64_t>> cache_;  // (prefix, tokens), most recent first
  std::unordered_map<int64_t, std::list<std::pair<int64_t, int64_t>>::iterator> cached_;
  int64_t cache_used_ = 0;
};

}  // namespace spillway::gateway
