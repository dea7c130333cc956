// config.json, typed: what each family needs to know of a checkpoint, checked. Unknown keys are tolerated, as the
// format demands. Values only; any thread. Not its job: weights, tokenizer.
#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "nn/rope.h"

namespace spillway::models {

// Layers [begin, end) of a model; end 0: to the last. What one stage of a pipeline runs.
struct LayerRange {
  int begin = 0;
  int end = 0;
  bool all() const { return begin == 0 && end == 0; }
};

// What every decoder has.
struct DecoderConfig {
  std::string architecture;
  int vocab_size = 0;
  int hidden_size = 0;
  int layers = 0;
  LayerRange slice;  // of the layers; the whole model has {0, layers}
  int heads = 0;
  int context_tokens_max = 0;
  double norm_epsilon = 1e-6;
  double rope_theta = 10000;
  nn::RopeScaling rope_scaling;
  bool tied_embeddings = false;
  std::string dtype;        // torch_dtype: "bfloat16", "float32", "float16"; empty when not given
  bool fp8_blocks = false;  // quantization_config fp8 with 128x128 blocks
};

// Llama and Qwen: grouped-query attention and a gated MLP.
struct DenseConfig : DecoderConfig {
  int kv_heads = 0;
  int head_dim = 0;
  int intermediate_size = 0;
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
};

struct DeepseekV3Config : DecoderConfig {
  int intermediate_size = 0;
  int moe_intermediate_size = 0;
  int q_lora_rank = 0;  // 0: q_proj alone
  int kv_lora_rank = 0;
  int nope_dim = 0, rope_dim = 0, value_dim = 0;
  int experts = 0, experts_per_token = 0, shared_experts = 0;
  int groups = 0, groups_kept = 0;
  int dense_layers = 0;  // leading layers without experts
  double routed_scale = 1;
  bool normalize_weights = true;
  bool rope_interleaved = true;
  int mtp_layers = 0;  // as the config says; the checkpoint may lack them
};

Result<DenseConfig> parse_llama_config(const boost::json::object& config);
Result<DenseConfig> parse_qwen2_config(const boost::json::object& config);
Result<DenseConfig> parse_qwen3_config(const boost::json::object& config);
Result<DeepseekV3Config> parse_deepseek_v3_config(const boost::json::object& config);

}  // namespace spillway::models
