// The engine's vocabulary: a request to continue a token sequence, and the events that answer it. Plain values; no
// text, no protocol.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/constraint.h"

namespace spillway::metrics {
class Timeline;
}

namespace spillway::engine {

using RequestId = uint64_t;

struct SamplingParams {
  float temperature = 1.0f;        // 0: greedy
  float top_p = 1.0f;              // (0, 1]
  int top_k = 0;                   // 0: off
  float min_p = 0.0f;              // [0, 1)
  float frequency_penalty = 0.0f;  // over generated tokens, OpenAI's definition
  float presence_penalty = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and generated tokens, Hugging Face's definition
  std::optional<uint64_t> seed;     // same seed, prompt and parameters: same tokens, whatever else runs
  std::vector<std::pair<int32_t, float>> logit_bias;
};

// Higher runs first; ties by arrival.
enum class Priority : int8_t { kLow = -1, kNormal = 0, kHigh = 1 };

struct Request {
  RequestId id = 0;  // unique among live requests; chosen by the submitter
  std::vector<int32_t> prompt;
  int resumed = 0;     // the prompt's last tokens that were generated before: penalties count them as such
  int max_tokens = 0;  // new tokens at most; > 0, unless only the prompt's logprobs are wanted
  SamplingParams sampling;
  std::vector<int32_t> stop_tokens;  // generation ends after one of these (it is reported as the last token)
  int min_tokens = 0;                // stop tokens are masked before
  int top_logprobs = -1;             // -1: none; 0: the chosen token's only; k: the k best as well
  bool prompt_logprobs = false;      // logprobs of the prompt's own tokens (echo)
  Priority priority = Priority::kNormal;
  TimePoint deadline = TimePoint::max();  // ends with kDeadline where it stands
  std::unique_ptr<TokenConstraint> constraint;
  bool speculate = true;  // draft tokens may be used
  bool use_prefix_cache = true;
  uint64_t cache_salt = 0;                      // prefixes are shared among requests with the same salt only
  std::shared_ptr<metrics::Timeline> timeline;  // what happens to it is written there; null: nowhere
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;
};

// One emitted token. Logprobs are of the model's distribution before temperature, penalties and masks.
struct TokenEvent {
  int32_t token = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
};

enum class FinishReason {
  kNone,    // not finished
  kStop,    // a stop token
  kLength,  // max_tokens or the model's context
  kCancelled,
  kDeadline,  // its deadline passed, queued or running
  kFailed,    // the engine could not go on (DeepSeek: insufficient_system_resource)
};

struct Usage {
  int prompt_tokens = 0;
  int cached_tokens = 0;  // prompt tokens taken from the prefix cache
  int completion_tokens = 0;
  int draft_tokens = 0;     // proposed by speculation
  int accepted_tokens = 0;  // of them, kept
  int preemptions = 0;
};

// What the engine says of a request, in order. started comes once, when its prefill begins; the last event has a
// finish.
struct Event {
  RequestId id = 0;
  bool started = false;
  std::vector<TokenEvent> tokens;
  std::vector<TokenEvent> prompt;  // with prompt_logprobs, once: one entry a prompt token; the first has logprob 0
  FinishReason finish = FinishReason::kNone;
  Usage usage;  // as of this event
};

const char* name_of(FinishReason reason);  // "stop", "length", ...: the label of the metric

// Receives the events of its requests on the engine's thread. Must return at once and never call back into the engine.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void on_event(Event event) = 0;
};

}  // namespace spillway::engine
