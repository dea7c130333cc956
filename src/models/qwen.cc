// Qwen2ForCausalLM (Qwen2, Qwen2.5, R1's Qwen distills: biases on q, k and v) and Qwen3ForCausalLM (norms of each
// head's query and key instead).
#include "models/dense_decoder.h"

namespace spillway::models {

Result<std::unique_ptr<LanguageModel>> load_qwen2(const boost::json::object& object, FamilyLoad load) {
  SW_ASSIGN(const DenseConfig config, parse_qwen2_config(object));
  return load_dense_decoder(config, std::move(load));
}

Result<std::unique_ptr<LanguageModel>> load_qwen3(const boost::json::object& object, FamilyLoad load) {
  SW_ASSIGN(const DenseConfig config, parse_qwen3_config(object));
  return load_dense_decoder(config, std::move(load));
}

}  // namespace spillway::models
