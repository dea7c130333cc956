// Bodies in gzip and zlib (HTTP's "gzip" and "deflate") taken apart, by zlib. Any thread; blocks for as long as it
// takes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::net {

// What is packed in `bytes`, at most bytes_max of it. Errors: kInvalidArgument for what is neither format, is cut off
// or has more behind its end; kResourceExhausted where it would be longer than bytes_max.
Result<std::string> inflate(std::string_view bytes, size_t bytes_max);

}  // namespace spillway::net
