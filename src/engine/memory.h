// How much memory the KV cache takes by default. Pure, but for reading the system's free memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "engine/engine.h"
#include "models/language_model.h"

namespace spillway::engine {

// Bytes that this process may still take: the system's available memory, or the control group's rest if that is less.
// The page cache counts as available in both.
int64_t memory_available_bytes();

// Makes the pages that lie within [begin, begin + bytes) resident and writable; their contents stay.
Status make_resident(std::byte* begin, int64_t bytes);

// Pages of the cache: options.kv_cache_bytes if given; else what sequences_max full contexts need, at most a quarter of
// the memory available beside the mapped weights, at least one full context. available_bytes: after loading.
int64_t choose_pages(const models::ModelInfo& info, const EngineOptions& options, int64_t available_bytes);

}  // namespace spillway::engine
