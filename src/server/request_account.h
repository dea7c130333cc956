// RequestAccount: one request on the books, over whichever protocol it came: its trace, its timeline, its place in the
// live state, and at its end the metrics and sinks that hear of it (outcomes, objectives, spans). Owned by whoever
// answers the request and touched by one thread at a time. Not its job: protocols' own metrics, what the answer says.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "api/common.h"
#include "base/clock.h"
#include "metrics/timeline.h"
#include "telemetry/request_record.h"

namespace spillway::server {

class Server;

// What a request brings along in its headers or metadata.
struct RequestOrigin {
  std::string id;
  bool id_is_ours = true;  // false: the client chose it
  std::string_view traceparent;
  std::string_view arm;  // as sent; only a short plain name is taken
  std::string_view key;  // as presented; empty: none
  telemetry::RequestRecord::Protocol protocol = telemetry::RequestRecord::Protocol::kHttp;
};

class RequestAccount {
 public:
  RequestAccount(Server& server, const RequestOrigin& origin);

  TimePoint received() const { return received_; }
  // What is learnt on the way is added there.
  telemetry::RequestRecord& record() { return record_; }
  std::string_view trace_id() const { return record_.trace.sampled ? std::string_view(record_.trace.trace_id) : ""; }
  const std::shared_ptr<metrics::Timeline>& timeline() const { return timeline_; }  // null: none is kept

  // Gives it a place among the requests that the console shows.
  void begin_timeline(std::string route, int64_t bytes);
  void set_model(std::string_view name, std::string_view version);
  void note_usage(const api::Usage& usage);
  // The first token has left; only the first call counts.
  void first_token();
  // As first_token, for an answer that somebody else made and timed.
  void first_token_after(double seconds);
  // It is a part of a request that has an account already: that one tells of it.
  void set_inner() { inner_ = true; }

  // The answer has ended: tells everybody, once.
  const telemetry::RequestRecord& end(std::string_view route, std::string_view operation, int status,
                                      const char* outcome);

 private:
  void count_tokens() const;

  Server& server_;
  const TimePoint received_;
  telemetry::RequestRecord record_;
  std::shared_ptr<metrics::Timeline> timeline_;
  bool inner_ = false;
};

// Stands for a key that was presented; 0: none.
uint64_t caller_of(std::string_view key);

}  // namespace spillway::server
