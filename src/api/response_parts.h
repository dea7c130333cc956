// The parts that several responses have in common.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "api/common.h"

namespace spillway::api {

// id, object, created, model and, where there is one, system_fingerprint.
boost::json::object head_json(const ResponseHead& head, std::string_view object);

// -inf has no JSON form: what cannot happen reports DeepSeek's -9999.
double finite_logprob(float logprob);

// A usage field for a chunk: the usage, null when it was asked for and comes later, or no field.
void set_chunk_usage(boost::json::object& chunk, const Usage* usage, bool include_usage);

}  // namespace spillway::api
