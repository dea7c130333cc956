// LiveState: what the console and `spillway top` show, summarised here so that viewers cost the same whatever the
// request rate. A thread of its own samples ten times a second while somebody looks and once a second otherwise (for
// the history), and makes one JSON text that all viewers are sent. Owned by the server; record() and frame() on any
// thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/clock.h"
#include "server/console/latency_map.h"
#include "server/console/readings.h"
#include "server/console/verdict.h"

namespace spillway::server {

class Server;

class LiveState {
 public:
  explicit LiveState(Server& server);
  ~LiveState();

  // A request has ended.
  void record(double seconds, bool failed) {
    requests_.record(seconds);
    if (failed) errors_.fetch_add(1, std::memory_order_relaxed);
  }
  void record_first_token(double seconds) { first_tokens_.record(seconds); }

  // The newest frame; from now on for a while the sampler makes ten a second. Null before the first.
  struct Frame {
    uint64_t number = 0;
    std::shared_ptr<const std::string> json;
  };
  Frame frame();

  // The newest frame with the history of the last minutes and the configuration.
  std::string whole();

  // Viewers of the event stream, bounded.
  bool enter();
  void leave() { --viewers_; }

 private:
  // One second of the history.
  struct Second {
    double requests_per_s = 0, generated_per_s = 0, prompt_per_s = 0, waiting = 0, running = 0, pages_used = 0;
  };
  void run();
  void measure();
  void sample(TimePoint now);
  void tick_second(TimePoint now);  // once a second
  Signals signals() const;
  std::string make_json(TimePoint now);

  Server& server_;
  const TimePoint started_;
  LatencyMap requests_;
  LatencyMap first_tokens_;
  std::atomic<uint64_t> errors_{0};
  std::atomic<int> viewers_{0};
  std::atomic<int64_t> watched_until_ns_{0};

  // The sampler's own.
  TimePoint second_began_;
  CounterRates rates_;
  HostCpu cpu_;
  uint64_t errors_before_ = 0;
  double errors_per_s_ = 0;
  double flops_peak_ = 0;
  double bandwidth_ = 0;  // 0: not measured
  Second latest_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;
  Frame frame_;
  std::deque<Second> history_;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace spillway::server
