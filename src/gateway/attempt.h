// Attempt: one try at one upstream. begin() goes as far as the first token (or the whole answer, when it is not
// streamed), so that everything that can go wrong before it stays unseen by the client; more() then gives the rest. It
// judges what it reads: keep-alives are no progress, an error in a 200 is an error, an answer that stops early is a
// failure. Owned by the journey, on its lane's thread. Tells its upstream once how it ended.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "gateway/call.h"
#include "gateway/continuation.h"
#include "gateway/event_pattern.h"
#include "gateway/resume.h"
#include "gateway/source.h"
#include "gateway/sse_events.h"
#include "gateway/translate/translate.h"

namespace spillway::gateway {

// The reason of a step: the prompt is too long for the upstream's model.
inline constexpr std::string_view kContextLength = "context_length";

// How a step of an attempt ended.
struct Step {
  enum class Kind { kGood, kForClient, kFailed } kind = Kind::kGood;
  Outcome outcome = Outcome::kAnswered;
  const char* reason = "";  // metric label
  std::string message;
  int status = 0;
  std::optional<Duration> rest;  // Retry-After
  bool again = false;            // the same upstream may well answer a second time
};

class Attempt {
 public:
  // resume: what has been told to the client already, and is to be continued; may be null.
  Attempt(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream, Upstream::Ticket ticket,
          std::shared_ptr<const Call> call, net::Handler local, uint64_t answer_bytes_max,
          std::shared_ptr<const Resume> resume);
  ~Attempt();

  asio::awaitable<Step> begin(TimePoint first_token_deadline);
  // Streams: fills out() anew until finished(). Failed: out() holds what was sound before.
  asio::awaitable<Step> more();
  // Reads what is left after the end, so that the connection can be used again.
  asio::awaitable<void> tidy();
  void cancel();
  // Tells the upstream; the first call counts.
  void conclude(Outcome outcome, std::optional<Duration> rest = {});

  Upstream& upstream() { return *upstream_; }
  std::string& out() { return out_; }  // for the client: events, or the whole body
  bool finished() const { return finished_; }
  int status() const { return source_ ? source_->status() : 0; }
  std::string content_type() const;
  const TokenUsage& usage() const { return usage_; }
  bool has_usage() const { return has_usage_; }
  int64_t text_bytes() const { return text_bytes_; }
  Resume& told() { return told_; }  // what the client has seen by this attempt
  Duration first_token_after() const { return first_token_after_; }
  std::string_view finish_reason() const { return finish_reason_; }
  std::string_view model() const { return model_; }  // as the upstream calls what answered
  const std::array<uint8_t, 8>& span() const { return span_; }
  Duration age() const { return std::chrono::steady_clock::now() - began_; }
  std::chrono::system_clock::time_point began_at() const { return began_at_; }

 private:
  Step open();
  asio::awaitable<Step> read_stream(TimePoint deadline, bool until_progress);
  asio::awaitable<Step> read_whole(TimePoint deadline);
  asio::awaitable<Step> read_refusal();
  Step take_events(std::string_view bytes);
  std::optional<Step> take(const RawEvent& event, AnswerFacts& facts);
  void take_marker(std::string_view text);
  void note_told(const AnswerFacts& facts);
  bool too_slow();
  std::vector<Splice> changes();
  bool continues_prefix() const { return continuation_.has_value(); }
  bool resumes_exactly() const;
  Step failure_of(const Error& error, bool began) const;
  Step refusal(int status, std::string_view body) const;
  bool end_of_stream();
  void progress();

  const std::shared_ptr<Lane> lane_;
  const std::shared_ptr<Upstream> upstream_;
  Upstream::Ticket ticket_;
  const std::shared_ptr<const Call> held_call_;
  const Call& call_;
  const net::Handler local_;
  const uint64_t answer_bytes_max_;
  const std::shared_ptr<const Resume> resume_;
  const Protocol protocol_;                   // of the upstream
  std::optional<Continuation> continuation_;  // goes on from words, not from tokens
  const std::array<uint8_t, 8> span_;
  const std::chrono::system_clock::time_point began_at_;
  std::unique_ptr<StreamTranslator> translator_;  // where the client speaks another dialect
  std::unique_ptr<Source> source_;
  std::string body_;  // where it differs from the client's
  EventSplitter splitter_;
  EventPattern pattern_;
  std::string out_;
  std::string unmarked_;  // events whose marker has not come yet
  Resume told_;
  TimePoint began_;
  TimePoint first_token_at_;
  Duration first_token_after_{};
  bool progressed_ = false;
  bool finish_seen_ = false;
  bool finished_ = false;
  bool marked_ = false;  // the upstream sends markers
  bool concluded_ = false;
  bool cancelled_ = false;
  bool usage_asked_ = false;     // by the gateway: the client gets no chunk of its own with it
  bool tokens_renamed_ = false;  // max_tokens, in the body
  bool has_usage_ = false;
  TokenUsage usage_;
  int64_t text_bytes_ = 0;
  std::string finish_reason_, model_;
  TimePoint pace_from_;  // of the span over which the stream's speed is judged
  int64_t pace_bytes_ = 0;
};

}  // namespace spillway::gateway
