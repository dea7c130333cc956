// A trace: the requests that a simulation replays. CSV with the header
//   arrival_s,prompt_tokens,output_tokens,prefix_id,prefix_tokens,priority,tenant
// prefix_id names what the prompt begins with (a system prompt, a conversation); prefix_tokens of it are shared. -1:
// none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::gateway {

struct TraceRequest {
  double arrival_s = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;  // as it turns out; the policies do not see it
  int64_t prefix_id = -1;
  int64_t prefix_tokens = 0;
  int priority = 0;
  std::string tenant;
};

// Arrivals must not fall. Errors: "line 7: prompt_tokens: expected ..., found ...".
Result<std::vector<TraceRequest>> parse_trace(std::string_view csv);
Result<std::vector<TraceRequest>> load_trace(const std::string& path);

}  // namespace spillway::gateway
