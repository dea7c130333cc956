// Generations straight on an engine, timed: random prompts, a fixed number of output tokens, no text.
#pragma once

#include <vector>

#include "base/result.h"
#include "engine/engine.h"

namespace spillway::apps {

struct GenerationShape {
  int prompt_tokens = 512;
  int output_tokens = 128;
  uint64_t seed = 1;  // of the prompts
};

struct Generation {
  double first_token_s = 0;  // from submission
  double last_token_s = 0;
  int tokens = 0;
  engine::Usage usage;
};

// Runs `count` at once and waits for all. An error when one is refused or fails.
Result<std::vector<Generation>> generate(engine::Engine& engine, int count, const GenerationShape& shape);

}  // namespace spillway::apps
