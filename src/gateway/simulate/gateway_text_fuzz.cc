// The gateway's small text formats: policies, traces, fleets, stored keys, key fields, Redis addresses, prompts. The
// first byte chooses.
#include <boost/json/parse.hpp>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "gateway/policies/prompt_scan.h"
#include "gateway/simulate/fleet.h"
#include "gateway/simulate/trace.h"
#include "gateway/tenants/key_json.h"
#include "gateway/tenants/redis_connection.h"
#include "gateway/tenants/response_cache.h"

using namespace spillway::gateway;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 7) {
    case 0: {
      const std::string one(text);
      (void)PolicyChain::parse(std::span<const std::string>(&one, 1)).ok();
      break;
    }
    case 1:
      (void)parse_trace(text).ok();
      break;
    case 2:
      (void)parse_fleet(text).ok();
      break;
    case 3: {
      const auto key = parse_stored_key(text);
      // What was read is written and read alike.
      SW_CHECK(!key.ok() || parse_stored_key(stored_key(*key)).ok(), "a stored key does not come back");
      break;
    }
    case 4:
      (void)parse_redis_url(text).ok();
      break;
    case 5: {
      const auto canonical = canonical_json(text, {"user"});
      SW_CHECK(!canonical || canonical_json(*canonical, {}) == canonical, "canonical JSON is not canonical");
      break;
    }
    default: {
      PromptScan scan;
      scan.add("user", text);
      RequestFeatures features;
      scan.finish(features);
      SW_CHECK(features.prompt_tokens >= 0 && features.prefix_blocks.size() <= kPrefixBlocksMax, "a prompt scan");
    }
  }
  return 0;
}
