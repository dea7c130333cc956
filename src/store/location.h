// Location: where a model lies outside of this machine: s3://BUCKET/PREFIX or https://HOST/FOLDER. Values; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::store {

struct Location {
  enum class Kind { kS3, kHttp } kind = Kind::kS3;
  std::string bucket;  // of s3
  std::string prefix;  // of s3, without a slash at either end; may be empty
  std::string base;    // of http: the URL of the folder, without a slash at its end

  // As a folder's name: readable, and different for different locations and endpoints.
  std::string folder_name(std::string_view endpoint) const;
};

// Whether the text names a place outside of this machine: "SCHEME://...".
bool is_location(std::string_view text);

Result<Location> parse_location(std::string_view text);

// A name in a listing that may become a path under a folder of ours: relative, no "..", no empty parts, nothing odd.
bool is_safe_name(std::string_view name);

// With what is not unreserved percent-encoded; slashes stay.
std::string encode_path(std::string_view path);

}  // namespace spillway::store
