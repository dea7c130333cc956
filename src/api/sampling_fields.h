// The fields that all generating requests share, read with their ranges.
#pragma once

#include "api/common.h"
#include "api/json_fields.h"

namespace spillway::api {

// max_tokens_low: 0 where echo alone may be asked.
void read_sampling(JsonFields& fields, Sampling& out, int max_tokens_low);
void read_stop(JsonFields& fields, std::string_view name, std::vector<std::string>& out);
void read_stream(JsonFields& fields, StreamOptions& out);
void read_priority(JsonFields& fields, RequestPriority& out);
void read_user(JsonFields& fields, std::string& out);

}  // namespace spillway::api
