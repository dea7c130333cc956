// What the tests of the translations share.
#pragma once

#include <gtest/gtest.h>

#include "gateway/translate/json_parts.h"

namespace spillway::gateway {

inline json::value parsed(std::string_view text) {
  boost::system::error_code failed;
  json::value value = json::parse({text.data(), text.size()}, failed);
  EXPECT_FALSE(failed) << text;
  return value;
}

}  // namespace spillway::gateway
