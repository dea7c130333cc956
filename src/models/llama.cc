// LlamaForCausalLM: Llama 2 and 3, and R1's Llama distills. Rotary halves, llama3 or yarn scaling, optional biases.
#include "models/dense_decoder.h"

namespace spillway::models {

Result<std::unique_ptr<LanguageModel>> load_llama(const boost::json::object& object, FamilyLoad load) {
  SW_ASSIGN(const DenseConfig config, parse_llama_config(object));
  return load_dense_decoder(config, std::move(load));
}

}  // namespace spillway::models
