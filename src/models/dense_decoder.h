// The decoder of the Llama and Qwen families: grouped-query attention and a gated MLP, by DenseConfig.
#pragma once

#include "models/config.h"
#include "models/loader.h"

namespace spillway::models {

Result<std::unique_ptr<LanguageModel>> load_dense_decoder(const DenseConfig& config, FamilyLoad load);

}  // namespace spillway::models
