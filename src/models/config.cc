#include "models/config.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "models/config_reader.h"

namespace spillway::models {

namespace json = boost::json;

namespace {

constexpr int64_t kSizeMax = 1 << 24;
constexpr int kFp8Block = 128;

std::string rope_kind_name(ConfigReader& rope) {
  // "type" is the old spelling; files that carry both mean the same by them.
  return rope.has("rope_type") ? rope.string_or("rope_type", "default") : rope.string_or("type", "default");
}

nn::RopeScaling read_rope_scaling(const json::object& object, const std::string& key, double context,
                                  ConfigReader& outer) {
  ConfigReader rope(object, key);
  nn::RopeScaling scaling;
  const std::string kind = rope_kind_name(rope);
  scaling.original_max_position = rope.number_or("original_max_position_embeddings", context);
  if (kind == "default") {
    scaling.kind = nn::RopeScaling::Kind::kNone;
  } else if (kind == "linear") {
    scaling.kind = nn::RopeScaling::Kind::kLinear;
    scaling.factor = rope.number("factor");
  } else if (kind == "llama3") {
    scaling.kind = nn::RopeScaling::Kind::kLlama3;
    scaling.factor = rope.number("factor");
    scaling.low_freq_factor = rope.number("low_freq_factor");
    scaling.high_freq_factor = rope.number("high_freq_factor");
    if (scaling.high_freq_factor <= scaling.low_freq_factor)
      rope.fail("expected high_freq_factor above low_freq_factor");
  } else if (kind == "yarn") {
    scaling.kind = nn::RopeScaling::Kind::kYarn;
    scaling.factor = rope.number_or("factor", context / scaling.original_max_position);
    scaling.beta_fast = rope.number_or("beta_fast", 32);
    scaling.beta_slow = rope.number_or("beta_slow", 1);
    scaling.mscale = rope.number_or("mscale", 0);
    scaling.mscale_all_dim = rope.number_or("mscale_all_dim", 0);
    scaling.attention_factor = rope.number_or("attention_factor", 0);
    scaling.truncate = rope.boolean_or("truncate", true);
  } else {
    rope.fail(fmt::format("expected a rope_type of default, linear, llama3, yarn; found '{}'", kind));
  }
  if (scaling.factor < 1) rope.fail(fmt::format("factor: expected at least 1, found {}", scaling.factor));
  if (scaling.original_max_position < 1) rope.fail("original_max_position_embeddings: expected at least 1");
  if (const Status status = rope.status(); !status.ok()) outer.fail(status.error().message);
  return scaling;
}

// transformers before 5 writes rope_theta and rope_scaling; from 5 on both are in rope_parameters.
void read_rope(ConfigReader& reader, DecoderConfig& config) {
  config.rope_theta = reader.number_or("rope_theta", 10000);
  for (const std::string key : {"rope_scaling", "rope_parameters"}) {
    const json::object* object = reader.object_or_null(key);
    if (object == nullptr) continue;
    config.rope_scaling = read_rope_scaling(*object, key, config.context_tokens_max, reader);
    ConfigReader rope(*object, key);
    config.rope_theta = rope.number_or("rope_theta", config.rope_theta);
    if (const Status status = rope.status(); !status.ok()) reader.fail(status.error().message);
  }
  if (config.rope_theta <= 1) reader.fail(fmt::format("rope_theta: expected above 1, found {}", config.rope_theta));
}

void read_quantization(ConfigReader& reader, DecoderConfig& config) {
  const json::object* object = reader.object_or_null("quantization_config");
  if (object == nullptr) return;
  ConfigReader quantization(*object, "quantization_config");
  const std::string method = quantization.string_or("quant_method", "");
  if (method != "fp8") {
    reader.fail(fmt::format("quantization_config: expected quant_method 'fp8' or none, found '{}'", method));
    return;
  }
  const std::string format = quantization.string_or("fmt", "e4m3");
  if (format != "e4m3") quantization.fail(fmt::format("expected fmt 'e4m3', found '{}'", format));
  const json::value* block = object->if_contains("weight_block_size");
  const bool is_128 = block != nullptr && block->is_array() && block->as_array().size() == 2 &&
                      block->as_array()[0] == json::value(kFp8Block) && block->as_array()[1] == json::value(kFp8Block);
  if (!is_128) quantization.fail("expected weight_block_size [128, 128]");
  if (const Status status = quantization.status(); !status.ok()) reader.fail(status.error().message);
  config.fp8_blocks = true;
}

void read_decoder(ConfigReader& reader, DecoderConfig& config) {
  config.vocab_size = int(reader.integer("vocab_size", 1, kSizeMax));
  config.hidden_size = int(reader.integer("hidden_size", 1, kSizeMax));
  config.layers = int(reader.integer("num_hidden_layers", 1, 4096));
  config.heads = int(reader.integer("num_attention_heads", 1, 65536));
  config.context_tokens_max = int(reader.integer("max_position_embeddings", 1, 1 << 24));
  config.norm_epsilon = reader.number_or("rms_norm_eps", 1e-6);
  config.tied_embeddings = reader.boolean_or("tie_word_embeddings", false);
  config.dtype = reader.has("dtype") ? reader.string_or("dtype", "") : reader.string_or("torch_dtype", "");
  const std::string activation = reader.string_or("hidden_act", "silu");
  if (activation != "silu") reader.fail(fmt::format("hidden_act: expected 'silu', found '{}'", activation));
  read_rope(reader, config);
  read_quantization(reader, config);
}

// The table of cosines and sines is reserved for the whole context.
void check_rope_table(ConfigReader& reader, int64_t context, int64_t dim) {
  constexpr int64_t kTableBytesMax = int64_t(8) << 30;
  if (context * dim * 4 > kTableBytesMax) {
    reader.fail(fmt::format("max_position_embeddings: expected at most {} with heads of {}, found {}",
                            kTableBytesMax / 4 / dim, dim, context));
  }
}

void read_sliding_window(ConfigReader& reader, const DenseConfig& config, bool default_use) {
  if (!reader.has("sliding_window") || !reader.boolean_or("use_sliding_window", default_use)) return;
  const int64_t window = reader.integer("sliding_window", 1, int64_t(1) << 40);
  if (window < config.context_tokens_max) {
    reader.fail(
        fmt::format("sliding_window: expected none or at least the context of {} tokens, found an active window of {}; "
                    "windowed attention is not served",
                    config.context_tokens_max, window));
  }
}

void read_dense(ConfigReader& reader, DenseConfig& config) {
  read_decoder(reader, config);
  config.intermediate_size = int(reader.integer("intermediate_size", 1, kSizeMax));
  config.kv_heads = int(reader.integer_or("num_key_value_heads", config.heads, 1, 65536));
  if (config.heads % config.kv_heads != 0) {
    reader.fail(fmt::format("expected num_attention_heads to be a multiple of num_key_value_heads, found {} and {}",
                            config.heads, config.kv_heads));
  }
  if (!reader.has("head_dim") && config.hidden_size % config.heads != 0) {
    reader.fail(fmt::format("expected head_dim, or a hidden_size that num_attention_heads divides; found {} and {}",
                            config.hidden_size, config.heads));
  }
  config.head_dim = int(reader.integer_or("head_dim", std::max(1, config.hidden_size / config.heads), 1, 4096));
  if (config.head_dim % 2 != 0)
    reader.fail(fmt::format("head_dim: expected an even number, found {}", config.head_dim));
  check_rope_table(reader, config.context_tokens_max, config.head_dim);
}

}  // namespace

Result<DenseConfig> parse_llama_config(const json::object& object) {
  ConfigReader reader(object, "config.json");
  DenseConfig config{};
  config.architecture = "LlamaForCausalLM";
  read_dense(reader, config);
  config.qkv_bias = config.output_bias = reader.boolean_or("attention_bias", false);
  config.mlp_bias = reader.boolean_or("mlp_bias", false);
  SW_TRY(reader.status());
  return config;
}

Result<DenseConfig> parse_qwen2_config(const json::object& object) {
  ConfigReader reader(object, "config.json");
  DenseConfig config{};
  config.architecture = "Qwen2ForCausalLM";
  read_dense(reader, config);
  read_sliding_window(reader, config, false);
  config.qkv_bias = true;
  SW_TRY(reader.status());
  return config;
}

Result<DenseConfig> parse_qwen3_config(const json::object& object) {
  ConfigReader reader(object, "config.json");
  DenseConfig config{};
  config.architecture = "Qwen3ForCausalLM";
  read_dense(reader, config);
  read_sliding_window(reader, config, false);
  // The family's head width is 128 whatever the hidden size, so a file without it means that.
  if (!reader.has("head_dim")) config.head_dim = 128;
  config.qkv_bias = config.output_bias = reader.boolean_or("attention_bias", false);
  config.qk_norm = true;
  SW_TRY(reader.status());
  return config;
}

Result<DeepseekV3Config> parse_deepseek_v3_config(const json::object& object) {
  ConfigReader reader(object, "config.json");
  DeepseekV3Config config{};
  config.architecture = "DeepseekV3ForCausalLM";
  read_decoder(reader, config);
  config.intermediate_size = int(reader.integer("intermediate_size", 1, kSizeMax));
  config.moe_intermediate_size = int(reader.integer("moe_intermediate_size", 1, kSizeMax));
  config.q_lora_rank = int(reader.integer_or("q_lora_rank", 0, 0, kSizeMax));
  config.kv_lora_rank = int(reader.integer("kv_lora_rank", 1, 65536));
  config.nope_dim = int(reader.integer("qk_nope_head_dim", 1, 4096));
  config.rope_dim = int(reader.integer("qk_rope_head_dim", 2, 4096));
  config.value_dim = int(reader.integer("v_head_dim", 1, 4096));
  config.experts = int(reader.integer_or("n_routed_experts", 0, 0, 65536));
  config.experts_per_token = int(reader.integer_or("num_experts_per_tok", 0, 0, 1024));
  config.shared_experts = int(reader.integer_or("n_shared_experts", 0, 0, 1024));
  config.groups = int(reader.integer_or("n_group", 1, 1, 65536));
  config.groups_kept = int(reader.integer_or("topk_group", 1, 1, 65536));
  config.dense_layers = int(reader.integer_or("first_k_dense_replace", 0, 0, 4096));
  config.routed_scale = reader.number_or("routed_scaling_factor", 1);
  config.normalize_weights = reader.boolean_or("norm_topk_prob", true);
  config.rope_interleaved = reader.boolean_or("rope_interleave", true);
  config.mtp_layers = int(reader.integer_or("num_nextn_predict_layers", 0, 0, 64));
  if (config.experts == 0) config.dense_layers = config.layers;
  if (config.rope_dim % 2 != 0)
    reader.fail(fmt::format("qk_rope_head_dim: expected an even number, found {}", config.rope_dim));
  check_rope_table(reader, config.context_tokens_max, config.rope_dim);
  if (reader.boolean_or("attention_bias", false)) reader.fail("attention_bias: expected false, found true");
  if (reader.integer_or("moe_layer_freq", 1, 1, 4096) != 1) reader.fail("moe_layer_freq: expected 1");
  if (const auto f = reader.string_or("scoring_func", "sigmoid"); f != "sigmoid") {
    reader.fail(fmt::format("scoring_func: expected 'sigmoid', found '{}'", f));
  }
  if (const auto m = reader.string_or("topk_method", "noaux_tc"); m != "noaux_tc") {
    reader.fail(fmt::format("topk_method: expected 'noaux_tc', found '{}'", m));
  }
  if (config.experts > 0) {
    const int group = config.experts / config.groups;
    if (config.experts % config.groups != 0 || config.groups_kept > config.groups || config.experts_per_token < 1 ||
        config.experts_per_token > config.groups_kept * group || (config.groups > 1 && group < 2)) {
      reader.fail(fmt::format(
          "routing: expected n_group to divide n_routed_experts and num_experts_per_tok to fit topk_group groups; "
          "found {} experts, {} groups, {} kept, {} a token",
          config.experts, config.groups, config.groups_kept, config.experts_per_token));
    }
  }
  SW_TRY(reader.status());
  return config;
}

}  // namespace spillway::models
