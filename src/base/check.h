// SW_CHECK: an invariant of ours. A violation is a bug: it prints the place and aborts, so that a broken server never
// goes on with broken state. Never used on input from outside.
#pragma once

#include <string_view>

namespace spillway {

[[noreturn]] void check_failed(const char* file, int line, const char* expression, std::string_view message);

}  // namespace spillway

#define SW_CHECK(condition, message)                                       \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::spillway::check_failed(__FILE__, __LINE__, #condition, (message)); \
  } while (0)
