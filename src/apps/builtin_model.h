// The embedded tiny-r1: its files are part of the program.
#pragma once

#include <cstdint>
#include <string_view>

#include "apps/memory_folder.h"
#include "base/result.h"

namespace spillway::apps {

// A folder that the loader opens like any checkpoint.
Result<MemoryFolder> builtin_folder();

std::string_view builtin_evaluation();  // evaluation.json
int64_t builtin_weight_bytes();

}  // namespace spillway::apps
