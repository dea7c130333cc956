#include "apps/shapes.h"

#include <algorithm>

namespace spillway::apps {
namespace {

constexpr std::string_view kQwen25Small =
    R"({"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","vocab_size":151936,
"hidden_size":896,"intermediate_size":4864,"num_hidden_layers":24,"num_attention_heads":14,"num_key_value_heads":2,
"max_position_embeddings":32768,"rms_norm_eps":1e-6,"rope_theta":1000000.0,"tie_word_embeddings":true,"hidden_act":"silu",
"torch_dtype":"bfloat16"})";

constexpr std::string_view kQwen25Middle =
    R"({"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","vocab_size":151936,
"hidden_size":1536,"intermediate_size":8960,"num_hidden_layers":28,"num_attention_heads":12,"num_key_value_heads":2,
"max_position_embeddings":32768,"rms_norm_eps":1e-6,"rope_theta":1000000.0,"tie_word_embeddings":true,"hidden_act":"silu",
"torch_dtype":"bfloat16"})";

constexpr std::string_view kQwen25Seven =
    R"({"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","vocab_size":152064,
"hidden_size":3584,"intermediate_size":18944,"num_hidden_layers":28,"num_attention_heads":28,"num_key_value_heads":4,
"max_position_embeddings":32768,"rms_norm_eps":1e-6,"rope_theta":1000000.0,"tie_word_embeddings":false,"hidden_act":"silu",
"torch_dtype":"bfloat16"})";

constexpr std::string_view kQwen3Small =
    R"({"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","vocab_size":151936,
"hidden_size":2048,"intermediate_size":6144,"num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,
"head_dim":128,"max_position_embeddings":40960,"rms_norm_eps":1e-6,"rope_theta":1000000.0,"tie_word_embeddings":true,
"attention_bias":false,"hidden_act":"silu","torch_dtype":"bfloat16"})";

constexpr std::string_view kLlama1b = R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":128256,
"hidden_size":2048,"intermediate_size":8192,"num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,
"head_dim":64,"max_position_embeddings":131072,"rms_norm_eps":1e-5,"rope_theta":500000.0,"rope_scaling":{"factor":32.0,
"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
"tie_word_embeddings":true,"attention_bias":false,"mlp_bias":false,"hidden_act":"silu","torch_dtype":"bfloat16"})";

constexpr std::string_view kLlama8b = R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":128256,
"hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,
"max_position_embeddings":131072,"rms_norm_eps":1e-5,"rope_theta":500000.0,"rope_scaling":{"factor":8.0,
"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
"tie_word_embeddings":false,"attention_bias":false,"mlp_bias":false,"hidden_act":"silu","torch_dtype":"bfloat16"})";

// About 2 billion parameters, 0.4 billion of them active, in the full model's form: FP8 blocks, grouped routing, MLA.
constexpr std::string_view kDeepseekSmall = R"({"architectures":["DeepseekV3ForCausalLM"],"model_type":"deepseek_v3",
"vocab_size":32768,"hidden_size":1536,"intermediate_size":4096,"moe_intermediate_size":768,"num_hidden_layers":16,
"num_nextn_predict_layers":0,"num_attention_heads":16,"num_key_value_heads":16,"n_shared_experts":1,"n_routed_experts":32,
"routed_scaling_factor":2.5,"kv_lora_rank":512,"q_lora_rank":768,"qk_rope_head_dim":64,"v_head_dim":128,
"qk_nope_head_dim":128,"topk_method":"noaux_tc","n_group":4,"topk_group":2,"num_experts_per_tok":4,"moe_layer_freq":1,
"first_k_dense_replace":1,"norm_topk_prob":true,"scoring_func":"sigmoid","hidden_act":"silu",
"max_position_embeddings":4096,"rms_norm_eps":1e-6,"rope_theta":10000.0,"attention_bias":false,"tie_word_embeddings":false,
"torch_dtype":"bfloat16","quantization_config":{"quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic",
"weight_block_size":[128,128]}})";

constexpr std::string_view kDeepseekR1 = R"({"architectures":["DeepseekV3ForCausalLM"],"model_type":"deepseek_v3",
"vocab_size":129280,"hidden_size":7168,"intermediate_size":18432,"moe_intermediate_size":2048,"num_hidden_layers":61,
"num_nextn_predict_layers":1,"num_attention_heads":128,"num_key_value_heads":128,"n_shared_experts":1,
"n_routed_experts":256,"routed_scaling_factor":2.5,"kv_lora_rank":512,"q_lora_rank":1536,"qk_rope_head_dim":64,
"v_head_dim":128,"qk_nope_head_dim":128,"topk_method":"noaux_tc","n_group":8,"topk_group":4,"num_experts_per_tok":8,
"moe_layer_freq":1,"first_k_dense_replace":3,"norm_topk_prob":true,"scoring_func":"sigmoid","hidden_act":"silu",
"max_position_embeddings":163840,"rms_norm_eps":1e-6,"rope_theta":10000,"rope_scaling":{"beta_fast":32,"beta_slow":1,
"factor":40,"mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":4096,"type":"yarn"},
"attention_bias":false,"tie_word_embeddings":false,"torch_dtype":"bfloat16","quantization_config":{"quant_method":"fp8",
"fmt":"e4m3","activation_scheme":"dynamic","weight_block_size":[128,128]}})";

}  // namespace

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {"qwen2.5-0.5b", kQwen25Small},        {"qwen2.5-1.5b", kQwen25Middle}, {"qwen2.5-7b", kQwen25Seven},
      {"qwen3-1.7b", kQwen3Small},           {"llama-1b", kLlama1b},          {"llama-8b", kLlama8b},
      {"deepseek-v3-small", kDeepseekSmall}, {"deepseek-r1", kDeepseekR1},
  };
  return all;
}

const Shape* find_shape(std::string_view name) {
  const auto found =
      std::find_if(shapes().begin(), shapes().end(), [&](const Shape& shape) { return shape.name == name; });
  return found == shapes().end() ? nullptr : &*found;
}

std::string shape_names() {
  std::string names;
  for (const auto& shape : shapes()) names += (names.empty() ? "" : ", ") + std::string(shape.name);
  return names;
}

}  // namespace spillway::apps
