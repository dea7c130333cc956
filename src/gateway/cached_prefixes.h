// What a Spillway says of the prompts that its cache holds (GET /v1/cached_prefixes, server/prefix_ledger.h), and how
// the prefix index learns from it: other gateways' requests become known here, evictions and restarts are believed.
// Owned by the prober's coroutine of one upstream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/policies/prefix_index.h"

namespace spillway::gateway {

inline constexpr std::string_view kPrefixHeader = "X-Spillway-Prefix";
inline constexpr const char* kCachedPrefixesPath = "/v1/cached_prefixes";

struct CachedPrefixes {
  std::string epoch;  // of the process
  std::vector<uint64_t> blocks;
};

// Nothing when the text is something else.
std::optional<CachedPrefixes> parse_cached_prefixes(std::string_view body);

// The header that tells an upstream what a prompt's blocks are called; empty when there is nothing to tell.
std::string prefix_header(const std::vector<uint64_t>& blocks, double tokens_per_block);

class PrefixReports {
 public:
  PrefixReports(PrefixIndex& index, size_t upstream) : index_(index), upstream_(upstream) {}
  void take(CachedPrefixes told, TimePoint now);

 private:
  PrefixIndex& index_;
  const size_t upstream_;
  CachedPrefixes last_;  // its blocks sorted
};

}  // namespace spillway::gateway
