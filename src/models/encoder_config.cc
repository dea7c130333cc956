#include "models/encoder_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <map>

#include "models/config_reader.h"

namespace spillway::models {
namespace {

namespace json = boost::json;
using kernels::Activation;

constexpr int64_t kDimensionMax = 1 << 16;

Activation parse_activation(ConfigReader& reader, std::string_view key, const std::string& fallback) {
  const std::string name = reader.string_or(key, fallback);
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  reader.fail(fmt::format("{}: expected gelu, gelu_new, gelu_pytorch_tanh, relu or silu, found '{}'", key, name));
  return Activation::kGelu;
}

EncoderNames bert_names(const std::string& prefix) {
  EncoderNames names;
  names.prefix = prefix;
  names.words = "embeddings.word_embeddings";
  names.positions = "embeddings.position_embeddings";
  names.types = "embeddings.token_type_embeddings";
  names.embedding_norm = "embeddings.LayerNorm";
  names.layers = "encoder.layer";
  names.pooler = "pooler.dense";
  return names;
}

nn::EncoderLayerNames bert_layer_names() {
  return {.qkv = {"attention.self.query", "attention.self.key", "attention.self.value"},
          .attention_output = "attention.output.dense",
          .attention_norm = "attention.output.LayerNorm",
          .mlp_in = {"intermediate.dense"},
          .mlp_out = "output.dense",
          .mlp_norm = "output.LayerNorm"};
}

void read_bert_sizes(ConfigReader& reader, EncoderConfig& config) {
  config.layers = int(reader.integer("num_hidden_layers", 1, 1000));
  config.vocab_size = int(reader.integer("vocab_size", 1, 1 << 24));
  config.layer.hidden = int(reader.integer("hidden_size", 2, kDimensionMax));
  config.layer.heads = int(reader.integer("num_attention_heads", 1, 1024));
  config.layer.intermediate = int(reader.integer("intermediate_size", 1, kDimensionMax));
  config.layer.epsilon = reader.number_or("layer_norm_eps", 1e-12);
  config.layer.activation = parse_activation(reader, "hidden_act", "gelu");
  config.position_rows = int(reader.integer("max_position_embeddings", 1, 1 << 24));
  config.tokens_max = config.position_rows;
  config.type_rows = int(reader.integer_or("type_vocab_size", 2, 0, 1024));
  const std::string kind = reader.string_or("position_embedding_type", "absolute");
  if (kind != "absolute") reader.fail(fmt::format("position_embedding_type: expected absolute, found '{}'", kind));
}

void read_bert(ConfigReader& reader, EncoderConfig& config) {
  config.names = bert_names("bert");
  config.layer.names = bert_layer_names();
  read_bert_sizes(reader, config);
  config.names.classifier = {.dense = "bert.pooler.dense", .norm = "", .output = "classifier"};
  config.names.masked_lm = {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
                            "cls.predictions.decoder", "cls.predictions.bias"};
}

// Positions start behind the padding's id, and there is one type of token.
void read_roberta(ConfigReader& reader, EncoderConfig& config) {
  config.names = bert_names("roberta");
  config.layer.names = bert_layer_names();
  read_bert_sizes(reader, config);
  config.position_offset = int(reader.integer_or("pad_token_id", 1, 0, 1 << 24)) + 1;
  config.tokens_max = config.position_rows - config.position_offset;
  if (config.tokens_max < 1) {
    reader.fail(fmt::format("max_position_embeddings: expected more than pad_token_id + 1 = {}, found {}",
                            config.position_offset, config.position_rows));
  }
  config.names.classifier = {.dense = "classifier.dense", .norm = "", .output = "classifier.out_proj"};
  config.names.masked_lm = {"lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"};
}

void read_distilbert(ConfigReader& reader, EncoderConfig& config) {
  config.names = bert_names("distilbert");
  config.names.types = "";
  config.names.layers = "transformer.layer";
  config.names.pooler = "";
  config.layer.names = {.qkv = {"attention.q_lin", "attention.k_lin", "attention.v_lin"},
                        .attention_output = "attention.out_lin",
                        .attention_norm = "sa_layer_norm",
                        .mlp_in = {"ffn.lin1"},
                        .mlp_out = "ffn.lin2",
                        .mlp_norm = "output_layer_norm"};
  config.layers = int(reader.integer("n_layers", 1, 1000));
  config.vocab_size = int(reader.integer("vocab_size", 1, 1 << 24));
  config.layer.hidden = int(reader.integer("dim", 2, kDimensionMax));
  config.layer.heads = int(reader.integer("n_heads", 1, 1024));
  config.layer.intermediate = int(reader.integer("hidden_dim", 1, kDimensionMax));
  config.layer.epsilon = 1e-12;
  config.layer.activation = parse_activation(reader, "activation", "gelu");
  config.position_rows = int(reader.integer("max_position_embeddings", 1, 1 << 24));
  config.tokens_max = config.position_rows;
  config.names.classifier = {
      .dense = "pre_classifier", .activation = Activation::kRelu, .norm = "", .output = "classifier"};
  config.names.masked_lm = {"vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"};
}

// Which layers attend within the window: by name, or every n-th does not.
void read_local_layers(ConfigReader& reader, const json::object& object, EncoderConfig& config) {
  const json::value* types = object.if_contains("layer_types");
  if (types != nullptr && types->is_array()) {
    for (const json::value& type : types->as_array())
      config.local_layers.push_back(type.is_string() && type.as_string() == "sliding_attention");
    if (int(config.local_layers.size()) != config.layers)
      reader.fail(fmt::format("layer_types: expected {} names, found {}", config.layers, config.local_layers.size()));
    return;
  }
  const int every = int(reader.integer_or("global_attn_every_n_layers", 3, 1, 1000));
  for (int i = 0; i < config.layers; ++i) config.local_layers.push_back(i % every != 0);
}

double theta_of(ConfigReader& reader, const json::object& parameters, const std::string& where, double fallback) {
  ConfigReader inner(parameters, "config.json: " + where);
  const double theta = inner.number_or("rope_theta", fallback);
  const std::string type = inner.string_or("rope_type", "default");
  if (type != "default") reader.fail(fmt::format("{}.rope_type: expected default, found '{}'", where, type));
  if (!inner.status().ok()) reader.fail(inner.status().error().message);
  return theta;
}

double plain_theta(ConfigReader& reader, double fallback) {
  const json::object* parameters = reader.object_or_null("rope_parameters");
  return parameters == nullptr ? fallback : theta_of(reader, *parameters, "rope_parameters", fallback);
}

// Of one kind of layer.
double nested_theta(ConfigReader& reader, const char* kind, double fallback) {
  const json::object* parameters = reader.object_or_null("rope_parameters");
  if (parameters == nullptr) return fallback;
  ConfigReader outer(*parameters, "config.json: rope_parameters");
  const json::object* one = outer.object_or_null(kind);
  return one == nullptr ? fallback : theta_of(reader, *one, fmt::format("rope_parameters.{}", kind), fallback);
}

void read_modernbert(ConfigReader& reader, const json::object& object, EncoderConfig& config) {
  EncoderNames& names = config.names;
  names.prefix = "model";
  names.words = "embeddings.tok_embeddings";
  names.embedding_norm = "embeddings.norm";
  names.layers = "layers";
  names.final_norm = "final_norm";
  config.layer.names = {.qkv = {"attn.Wqkv"},
                        .attention_output = "attn.Wo",
                        .attention_norm = "attn_norm",
                        .mlp_in = {"mlp.Wi"},
                        .mlp_out = "mlp.Wo",
                        .mlp_norm = "mlp_norm"};
  config.layer.norm_before = config.layer.gated = config.first_norm_is_identity = true;
  config.layers = int(reader.integer("num_hidden_layers", 1, 1000));
  config.vocab_size = int(reader.integer("vocab_size", 1, 1 << 24));
  config.layer.hidden = int(reader.integer("hidden_size", 2, kDimensionMax));
  config.layer.heads = int(reader.integer("num_attention_heads", 1, 1024));
  config.layer.intermediate = int(reader.integer("intermediate_size", 1, kDimensionMax));
  config.layer.epsilon = reader.number_or("norm_eps", 1e-5);
  config.layer.activation = parse_activation(reader, "hidden_activation", "gelu");
  config.tokens_max = int(reader.integer_or("max_position_embeddings", 8192, 1, 1 << 24));
  config.rope_theta = nested_theta(reader, "full_attention", reader.number_or("global_rope_theta", 160000));
  config.rope_theta_local = nested_theta(reader, "sliding_attention", reader.number_or("local_rope_theta", 10000));
  config.layer.window = int(reader.integer_or("local_attention", 128, 2, 1 << 24)) / 2;
  read_local_layers(reader, object, config);
  const std::string pooling = reader.string_or("classifier_pooling", "cls");
  if (pooling != "cls" && pooling != "mean")
    reader.fail(fmt::format("classifier_pooling: expected cls or mean, found '{}'", pooling));
  names.classifier = {.pooling = pooling == "mean" ? kernels::Pooling::kMean : kernels::Pooling::kFirst,
                      .dense = "head.dense",
                      .activation = parse_activation(reader, "classifier_activation", "gelu"),
                      .norm = "head.norm",
                      .output = "classifier"};
  names.masked_lm = {"head.dense", "head.norm", "decoder", "decoder.bias"};
}

void read_nomic(ConfigReader& reader, EncoderConfig& config) {
  EncoderNames& names = config.names;
  names.words = "embeddings.word_embeddings";
  names.types = "embeddings.token_type_embeddings";
  names.embedding_norm = "emb_ln";
  names.layers = "encoder.layers";
  config.layer.names = {.qkv = {"attn.Wqkv"},
                        .attention_output = "attn.out_proj",
                        .attention_norm = "norm1",
                        .mlp_in = {"mlp.fc12", "mlp.fc11"},
                        .mlp_out = "mlp.fc2",
                        .mlp_norm = "norm2"};
  names.prefix = "nomic_bert";
  names.pooler = "pooler.dense";
  names.classifier = {.pooling = kernels::Pooling::kFirst,
                      .dense = "nomic_bert.pooler.dense",
                      .activation = Activation::kTanh,
                      .norm = "",
                      .output = "classifier"};
  names.masked_lm = {"cls.predictions.transform.dense", "cls.predictions.transform.layer_norm",
                     "cls.predictions.decoder", "cls.predictions.bias"};
  // The published files have GPT-2's keys; those that the reference library writes have BERT's.
  const bool published = reader.has("n_embd");
  const auto size = [&](const char* old_key, const char* new_key, int64_t low, int64_t high) {
    return int(reader.integer(published ? old_key : new_key, low, high));
  };
  config.layers = size("n_layer", "num_hidden_layers", 1, 1000);
  config.vocab_size = int(reader.integer("vocab_size", 1, 1 << 24));
  config.layer.hidden = size("n_embd", "hidden_size", 2, kDimensionMax);
  config.layer.heads = size("n_head", "num_attention_heads", 1, 1024);
  config.layer.intermediate = size("n_inner", "intermediate_size", 1, kDimensionMax);
  config.tokens_max = size("n_positions", "max_position_embeddings", 1, 1 << 24);
  config.layer.epsilon = reader.number_or(published ? "layer_norm_epsilon" : "layer_norm_eps", 1e-12);
  config.type_rows = int(reader.integer_or("type_vocab_size", 2, 0, 1024));
  config.layer.gated = true;
  config.layer.activation = Activation::kSilu;
  config.rope_theta = reader.number_or("rotary_emb_base", 1000);
  if (!published) {
    config.layer.activation = parse_activation(reader, "hidden_act", "silu");
    config.rope_theta = plain_theta(reader, 1000);
    return;
  }
  const std::string activation = reader.string_or("activation_function", "swiglu");
  if (activation != "swiglu") reader.fail(fmt::format("activation_function: expected swiglu, found '{}'", activation));
  if (reader.boolean_or("prenorm", false)) reader.fail("prenorm: expected false, found true");
  if (reader.number_or("rotary_emb_fraction", 0) != 1) reader.fail("rotary_emb_fraction: expected 1");
  if (reader.boolean_or("rotary_emb_interleaved", false)) reader.fail("rotary_emb_interleaved: expected false");
}

std::string stored_dtype(ConfigReader& reader) {
  return reader.has("dtype") ? reader.string_or("dtype", "") : reader.string_or("torch_dtype", "");
}

bool ends_with(const std::string& text, std::string_view end) { return std::string_view(text).ends_with(end); }

}  // namespace

std::vector<std::string> parse_labels(const json::object& config, int count) {
  std::map<int, std::string> by_id;
  const json::value* labels = config.if_contains("id2label");
  if (labels != nullptr && labels->is_object()) {
    for (const auto& [id, name] : labels->as_object()) {
      const std::string number(id);
      if (name.is_string() && !number.empty() && number.size() < 8 &&
          std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; })) {
        by_id[std::stoi(number)] = std::string(name.as_string());
      }
    }
  }
  std::vector<std::string> list;
  for (const auto& [id, name] : by_id) list.push_back(name);
  if (list.empty()) {
    for (int i = 0; i < count; ++i) list.push_back(fmt::format("LABEL_{}", i));
  }
  return list;
}

Result<EncoderConfig> parse_encoder_config(const json::object& object) {
  ConfigReader reader(object, "config.json");
  EncoderConfig config;
  config.architecture = std::string(object.at("architectures").as_array()[0].as_string());
  const std::string& name = config.architecture;
  if (ends_with(name, "ForSequenceClassification")) config.task = EncoderTask::kClassification;
  if (ends_with(name, "ForMaskedLM")) config.task = EncoderTask::kMaskedLm;
  if (name.starts_with("Roberta") || name.starts_with("XLMRoberta")) {
    read_roberta(reader, config);
  } else if (name.starts_with("DistilBert")) {
    read_distilbert(reader, config);
  } else if (name.starts_with("ModernBert")) {
    read_modernbert(reader, object, config);
  } else if (name.starts_with("NomicBert")) {
    read_nomic(reader, config);
  } else {
    read_bert(reader, config);
  }
  config.dtype = stored_dtype(reader);
  if (config.task == EncoderTask::kClassification) {
    config.labels = parse_labels(object, int(reader.integer_or("num_labels", 2, 1, 1 << 20)));
    config.multi_label = reader.string_or("problem_type", "") == "multi_label_classification";
  }
  SW_TRY(reader.status());
  const int dim = config.layer.hidden / config.layer.heads;
  if (config.layer.hidden % config.layer.heads != 0 || dim % 2 != 0) {
    return invalid(fmt::format("config.json: expected an even number of elements a head, found {} for {} heads",
                               config.layer.hidden, config.layer.heads));
  }
  return config;
}

}  // namespace spillway::models
