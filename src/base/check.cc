#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace spillway {

void check_failed(const char* file, int line, const char* expression, std::string_view message) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s: %.*s\n", file, line, expression, int(message.size()), message.data());
  std::abort();
}

}  // namespace spillway
