// A small validator of what grammars promise, written apart from them: for tests alone.
#pragma once

#include <boost/json/value.hpp>

namespace spillway::text {

bool conforms(const boost::json::value& value, const boost::json::value& schema, const boost::json::value& document);

}  // namespace spillway::text
