#include "models/sentence_config.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <filesystem>

#include "models/config_reader.h"
#include "models/model_folder.h"

namespace spillway::models {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;
using kernels::Activation;
using kernels::Pooling;

// The class of a module: the last word of its type.
std::string class_of(const std::string& type) {
  const size_t dot = type.rfind('.');
  return dot == std::string::npos ? type : type.substr(dot + 1);
}

Result<Pooling> read_pooling(const json::object& object, const std::string& where) {
  constexpr struct {
    const char* key;
    const char* name;
    Pooling pooling;
  } kModes[] = {{"pooling_mode_cls_token", "cls", Pooling::kFirst},
                {"pooling_mode_mean_tokens", "mean", Pooling::kMean},
                {"pooling_mode_max_tokens", "max", Pooling::kMax},
                {"pooling_mode_lasttoken", "lasttoken", Pooling::kLast},
                {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::kMeanSqrtLength}};
  ConfigReader reader(object, where);
  const std::string named = reader.string_or("pooling_mode", "");
  std::optional<Pooling> found;
  int modes = reader.boolean_or("pooling_mode_weightedmean_tokens", false) ? 1 : 0;
  for (const auto& mode : kModes) {
    if (!(named.empty() ? reader.boolean_or(mode.key, false) : named == mode.name)) continue;
    found = mode.pooling;
    ++modes;
  }
  SW_TRY(reader.status());
  if (modes == 1 && found) return *found;
  return unsupported(fmt::format(
      "{}: expected one pooling mode of cls, mean, max, lasttoken and mean_sqrt_len, found {}", where, modes));
}

Result<SentenceDense> read_dense(const json::object& object, const std::string& folder) {
  ConfigReader reader(object, folder + "/config.json");
  SentenceDense dense{.folder = folder};
  dense.inputs = int(reader.integer("in_features", 1, 1 << 20));
  dense.outputs = int(reader.integer("out_features", 1, 1 << 20));
  const std::string activation = class_of(reader.string_or("activation_function", "torch.nn.modules.activation.Tanh"));
  if (activation == "Tanh") {
    dense.activation = Activation::kTanh;
  } else if (activation == "ReLU") {
    dense.activation = Activation::kRelu;
  } else if (activation == "GELU") {
    dense.activation = Activation::kGelu;
  } else if (activation != "Identity") {
    reader.fail(fmt::format("activation_function: expected Tanh, ReLU, GELU or Identity, found '{}'", activation));
  }
  SW_TRY(reader.status());
  return dense;
}

Status read_module(const json::value& value, const std::string& folder, SentenceConfig& config) {
  const std::string where = folder + "/modules.json";
  if (!value.is_object()) return invalid(where + ": expected a list of objects");
  ConfigReader reader(value.as_object(), where);
  const std::string type = class_of(reader.string_or("type", "")), path = reader.string_or("path", "");
  SW_TRY(reader.status());
  if (path.find("..") != std::string::npos || path.starts_with("/"))
    return invalid(fmt::format("{}: expected a path inside the folder, found '{}'", where, path));
  if (type == "Transformer") return {};
  if (type == "Normalize") {
    config.normalize = true;
    return {};
  }
  const std::string own = folder + "/" + path;
  if (type == "Pooling") {
    SW_ASSIGN(const auto object, read_config(own));
    SW_ASSIGN(config.pooling, read_pooling(*object, own + "/config.json"));
    return {};
  }
  if (type == "Dense") {
    SW_ASSIGN(const auto object, read_config(own));
    SW_ASSIGN(SentenceDense dense, read_dense(*object, own));
    config.dense.push_back(std::move(dense));
    return {};
  }
  return unsupported(
      fmt::format("{}: expected modules Transformer, Pooling, Dense and Normalize, found '{}'", where, type));
}

Status read_prompts(const std::string& folder, SentenceConfig& config) {
  const std::string path = folder + "/config_sentence_transformers.json";
  if (!fs::exists(path)) return {};
  SW_ASSIGN(const auto object, read_config(path));
  ConfigReader reader(*object, path);
  if (const json::object* prompts = reader.object_or_null("prompts")) {
    for (const auto& [name, text] : *prompts) {
      if (!text.is_string()) {
        reader.fail(fmt::format("prompts: expected a text for '{}'", std::string_view(name.data(), name.size())));
        break;
      }
      config.prompts[std::string(name)] = std::string(text.as_string());
    }
  }
  config.default_prompt = reader.string_or("default_prompt_name", "");
  config.similarity = reader.string_or("similarity_fn_name", "cosine");
  return reader.status();
}

}  // namespace

Result<SentenceConfig> read_sentence_config(const std::string& folder) {
  SentenceConfig config;
  SW_TRY(read_prompts(folder, config));
  const std::string lengths = folder + "/sentence_bert_config.json";
  if (fs::exists(lengths)) {
    SW_ASSIGN(const auto object, read_config(lengths));
    ConfigReader reader(*object, lengths);
    if (reader.has("max_seq_length")) config.tokens_max = int(reader.integer("max_seq_length", 1, 1 << 24));
    SW_TRY(reader.status());
  }
  const std::string modules = folder + "/modules.json";
  if (!fs::exists(modules)) return config;
  config.published = true;
  SW_ASSIGN(const auto list, read_json_list(modules));
  for (const json::value& module : *list) SW_TRY(read_module(module, folder, config));
  return config;
}

}  // namespace spillway::models
