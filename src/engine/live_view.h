// LiveView: the engine at one moment as an operator sees it: every stream, the queue with predicted waits, the last
// step's batch, pages and the prefix tree. The engine's thread makes one after a step when somebody has asked; readers
// share it. Plain values, bounded whatever the load.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/cost_model.h"
#include "engine/request.h"
#include "kv/cache.h"

namespace spillway::engine {

class Core;
struct Load;

struct LiveStream {
  enum class Phase { kWaiting, kPrefill, kDecode };
  RequestId id = 0;
  std::string name;  // of its timeline: the request's id outside
  Phase phase = Phase::kWaiting;
  Priority priority = Priority::kNormal;
  int prompt_tokens = 0;
  int cached_tokens = 0;
  int computed_tokens = 0;
  int generated_tokens = 0;
  int max_tokens = 0;
  int pages = 0;
  int preemptions = 0;
  double age_s = 0;
  double predicted_wait_s = 0;  // of those that wait: from now
};

// Here, for the server links without the engine.
constexpr const char* name_of(LiveStream::Phase phase) {
  return phase == LiveStream::Phase::kWaiting ? "waiting" : phase == LiveStream::Phase::kPrefill ? "prefill" : "decode";
}

// The batch of the last step that computed something.
struct LiveStep {
  int decode_rows = 0;
  int prefill_tokens = 0;
  int sequences = 0;
  int draft_rows = 0;
  double step_s = 0;
};

struct LiveView {
  static constexpr size_t kStreamsMax = 128;
  static constexpr size_t kMapCells = 512;

  TimePoint at;
  int64_t steps = 0;
  int running = 0;
  int decoding = 0;
  int waiting = 0;
  bool blocked = false;  // something waits for a slot or for pages
  std::vector<LiveStream> streams;  // running first, then waiting in the order they will go; the first kStreamsMax
  LiveStep last;
  StepCost cost;
  double step_s_mean = 0;  // recently, of steps that computed
  double rows_mean = 0;    // and their rows
  int batch_tokens_max = 0;
  int sequences_max = 0;
  int page_tokens = 0;
  int pages_total = 0;
  int pages_free = 0;
  int pages_cached = 0;
  int pages_shared = 0;            // held by more than one sequence
  std::vector<uint8_t> page_map;   // the pages in order, thinned to kMapCells: kv::PageUse
  kv::PrefixSummary prefixes;
  // The floor of a step, from the model: bytes of weights and of the cache it reads, operations it makes.
  double weight_bytes = 0;  // of a step with one row
  double cache_bytes = 0;   // of the last step's sequences
  double flops = 0;         // of the last step's rows
};

LiveView view_core(const Core& core);

}  // namespace spillway::engine
