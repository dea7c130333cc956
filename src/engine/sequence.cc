#include "engine/sequence.h"

#include <algorithm>
#include <random>

#include "kv/block_hash.h"

namespace spillway::engine {

Sequence::Sequence(std::unique_ptr<Request> from, std::shared_ptr<EventSink> to, int page_tokens, TimePoint now)
    : request(std::move(from)), sink(std::move(to)), submitted(now), last_event(now), tokens(request->prompt) {
  tokens.reserve(tokens.size() + std::min(request->max_tokens, 4096));
  if (request->use_prefix_cache) hashes = kv::prefix_hashes(tokens, page_tokens, request->cache_salt);
  seed = seed_of(*request);
  if (uses_penalties(request->sampling)) {
    const size_t asked = tokens.size() - std::min(tokens.size(), static_cast<size_t>(request->resumed));
    counts.set_prompt(std::span<const int32_t>(tokens).first(asked));
    for (size_t i = asked; i < tokens.size(); ++i) counts.add_generated(tokens[i]);
  }
  usage.prompt_tokens = prompt_tokens();
}

int Sequence::cacheable_pages(int page_tokens) const {
  if (!request->use_prefix_cache || wants_prompt_rows()) return 0;
  return static_cast<int>(tokens.size() - 1) / page_tokens;
}

uint64_t seed_of(const Request& request) {
  if (request.sampling.seed) return kv::mix(*request.sampling.seed + 0x5851f42d4c957f2dull);
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return random();
}

}  // namespace spillway::engine
