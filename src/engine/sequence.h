// Sequence: one request on its way through the engine: its tokens so far, its pages, and what sampling needs. Made on
// the submitter's thread, then owned by the engine's state on its thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "kv/cache.h"

namespace spillway::engine {

struct Sequence {
  Sequence(std::unique_ptr<Request> from, std::shared_ptr<EventSink> to, int page_tokens, TimePoint now);

  RequestId id() const { return request->id; }
  int prompt_tokens() const { return static_cast<int>(request->prompt.size()); }
  int generated_tokens() const { return static_cast<int>(tokens.size() - request->prompt.size()); }
  // With prompt_logprobs: their rows are not all there yet.
  bool wants_prompt_rows() const {
    return request->prompt_logprobs && !prompt_sent && static_cast<int>(prompt_logprobs.size()) < prompt_tokens();
  }
  // Pages of the prefix that a cached copy may serve: at least the last token is computed anew, for its logits; with
  // prompt_logprobs all of them.
  int cacheable_pages(int page_tokens) const;

  std::unique_ptr<Request> request;
  std::shared_ptr<EventSink> sink;
  int64_t arrival = 0;  // order of arrival
  TimePoint submitted;
  TimePoint last_event;

  std::vector<int32_t> tokens;  // prompt, then what was emitted
  int computed = 0;             // tokens whose keys and values are in the pages
  kv::BlockTable table;
  std::vector<uint64_t> hashes;  // of the prompt's full pages, to find prefixes that are being computed now

  TokenCounts counts;  // with penalties only
  uint64_t seed = 0;
  std::vector<uint64_t> allowed;  // with a constraint only: the mask of the next token

  int32_t draft = -1;     // proposed next token, not verified yet
  bool drafting = false;  // its draft layer's cache has no holes
  double acceptance = 0;  // of its drafts, recent ones counting most
  int losing_steps = 0;   // steps in a row in which drafting was not worth it

  bool in_flight = false;  // the device is drawing its next token
  bool started = false;
  bool cancelled = false;
  int64_t last_step = -1;
  Usage usage;
  std::vector<TokenEvent> prompt_logprobs;
  bool prompt_sent = false;
};

// The request's seed, or a random one.
uint64_t seed_of(const Request& request);

}  // namespace spillway::engine
