// What whole answers and streams translate alike: usage. Pure; any thread.
#pragma once

#include "gateway/translate/json_parts.h"

namespace spillway::gateway {

// Tokens as both dialects count them; prompt with the cached ones.
struct UsageFigures {
  int64_t prompt = 0;
  int64_t cached = 0;
  int64_t output = 0;
  bool known = false;

  void take_openai(const json::object& usage);
  void take_anthropic(const json::object& usage);
  json::object openai() const;
  json::object anthropic() const;
};

int64_t unix_now();

}  // namespace spillway::gateway
