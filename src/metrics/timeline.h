// Timeline: what happened to one request and when: received, queued, its prefill's chunks, tokens, the upstreams it was
// sent to, retries, the end. Timelines: the bounded ring of the most recent ones, from which the console answers for an
// id. A request carries its timeline along (net::HttpRequest, engine::Request); whoever handles it adds moments. Any
// thread; a moment costs one uncontended lock and no allocation once the request's place has grown. Holds no text of
// prompts or answers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace spillway::metrics {

struct Moment {
  enum class Kind : uint8_t {
    kReceived,   // a: bytes of the body
    kQueued,     // the engine took it; a: prompt tokens
    kRefused,    // note: the reason
    kStarted,    // its prefill begins; a: prompt tokens taken from the cache
    kPrefill,    // a chunk was computed; a: tokens computed so far, b: tokens of the chunk
    kTokens,     // a: tokens generated so far, b: of them in this step
    kPreempted,  // put back because pages ran out
    kFinished,   // the engine is done; a: tokens generated, note: how it ended
    kAttempt,    // sent to an upstream; note: its name
    kFirstByte,  // an upstream's first token or answer; note: its name
    kFailed,     // the attempt failed; note: upstream and reason
    kResumed,    // a broken stream goes on elsewhere; note: upstream
    kAnswered,   // the last byte; a: status, note: outcome
  };
  TimePoint at;
  Kind kind = Kind::kReceived;
  int64_t a = 0;
  int64_t b = 0;
  std::string note = {};
};

const char* name_of(Moment::Kind kind);  // "received", "prefill", ...

class Timeline {
 public:
  Timeline(std::string id, std::string route, TimePoint received, std::string trace_id = "");

  void add(Moment::Kind kind, TimePoint at, int64_t a = 0, int64_t b = 0, std::string_view note = {});
  // Another name that it may be looked up by: the id in the answer's body.
  void answers_as(std::string_view id);
  void set_model(std::string_view model);

  const std::string& id() const { return id_; }
  const std::string& route() const { return route_; }
  std::string_view trace_id() const { return trace_id_; }  // for exemplars; empty: not sampled
  TimePoint received() const { return received_; }
  bool is_named(std::string_view id) const;
  bool ended() const;

  struct Snapshot {
    std::string model;
    std::string answer_id;
    bool ended = false;
    int64_t dropped = 0;  // moments beyond the bound
    std::vector<Moment> moments;
  };
  Snapshot snapshot() const;

 private:
  const std::string id_;
  const std::string route_;
  const TimePoint received_;
  const std::string trace_id_;
  mutable std::mutex mutex_;
  std::string model_;
  std::string answer_id_;
  std::vector<Moment> moments_;
  int64_t token_stride_ = 1;  // of the moments of tokens, every so many are kept
  int64_t token_moments_ = 0;
  int64_t dropped_ = 0;
  bool ended_ = false;
};

// Of a request that may have none.
inline std::string_view trace_id_of(const std::shared_ptr<Timeline>& timeline) {
  return timeline ? timeline->trace_id() : std::string_view();
}

class Timelines {
 public:
  explicit Timelines(size_t capacity = 2048);

  std::shared_ptr<Timeline> begin(std::string id, std::string route, TimePoint received, std::string trace_id = "");
  std::shared_ptr<Timeline> find(std::string_view id) const;  // the newest of that id; null: not among those kept
  // By its own id alone, which costs one look-up whether it is there or not.
  std::shared_ptr<Timeline> with_id(std::string_view id) const;
  std::vector<std::shared_ptr<Timeline>> recent(size_t count) const;  // newest first
  uint64_t begun() const;
  // Whether a request that is refused at the door gets a place: so many a second do, lest a flood of them push out
  // those that ran.
  bool has_place_for_refused(TimePoint now);

 private:
  // A place in the ring, and the one begun before it whose id falls into the same bucket. Places are counted from 1 and
  // never used again, so that a chain ends where it leaves the ring, and leaving costs nothing.
  struct Place {
    std::shared_ptr<Timeline> timeline;
    uint64_t older = 0;
  };
  Place& at(uint64_t number) { return ring_[number % ring_.size()]; }
  const Place& at(uint64_t number) const { return ring_[number % ring_.size()]; }
  bool is_kept(uint64_t number) const { return number > 0 && number + ring_.size() > last_; }

  mutable std::mutex mutex_;
  std::vector<Place> ring_;
  std::vector<uint64_t> newest_;  // by bucket of the id's hash
  uint64_t last_ = 0;
  std::atomic<Duration::rep> refused_from_{0};  // when the next refused one gets a place
};

}  // namespace spillway::metrics
