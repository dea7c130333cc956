// One page of an S3 listing (ListObjectsV2), read from the store's XML.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::store {

struct S3Listing {
  struct Object {
    std::string key;
    int64_t size = 0;
    std::string etag;  // without quotes
  };
  std::vector<Object> objects;
  std::string next;  // continuation token; empty: the last page
};

Result<S3Listing> parse_s3_listing(std::string_view xml);

// "NoSuchBucket: The specified bucket does not exist" of an error's XML; empty when it is none.
std::string s3_error_text(std::string_view xml);

}  // namespace spillway::store
