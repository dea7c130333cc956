#include "models/model_folder.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>

#include "models/config_reader.h"

namespace spillway::models {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

constexpr uintmax_t kConfigBytesMax = 16 << 20;
constexpr int64_t kTokenMax = int64_t(1) << 30;

using ObjectPointer = std::shared_ptr<const json::object>;

Result<json::value> read_json(const std::string& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error) return not_found(fmt::format("{}: {}", path, error.message()));
  if (size > kConfigBytesMax)
    return invalid(fmt::format("{}: expected at most {} bytes, found {}", path, kConfigBytesMax, size));
  std::ifstream in(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  json::error_code ec;
  json::value root = json::parse(text, ec);
  if (ec) return corrupt(fmt::format("{}: {}", path, ec.message()));
  return root;
}

Result<ObjectPointer> read_object(const std::string& path) {
  SW_ASSIGN(json::value root, read_json(path));
  if (!root.is_object()) return corrupt(fmt::format("{}: expected a JSON object", path));
  return ObjectPointer(std::make_shared<json::object>(std::move(root.as_object())));
}

// An id or a list of ids.
std::vector<int32_t> read_ids(ConfigReader& reader, const json::object& object, std::string_view key) {
  std::vector<int32_t> ids;
  const json::value* value = object.if_contains(json::string_view(key.data(), key.size()));
  if (value == nullptr || value->is_null()) return ids;
  if (!value->is_array()) return {int32_t(reader.integer(key, 0, kTokenMax))};
  for (const json::value& item : value->as_array()) {
    const int64_t* id = item.if_int64();
    if (id == nullptr || *id < 0 || *id > kTokenMax) {
      reader.fail(fmt::format("{}: expected token ids", key));
      return ids;
    }
    ids.push_back(int32_t(*id));
  }
  return ids;
}

Status read_generation(const json::object& object, const std::string& where, GenerationConfig& generation) {
  ConfigReader reader(object, where);
  if (auto ids = read_ids(reader, object, "eos_token_id"); !ids.empty()) generation.eos_token_ids = std::move(ids);
  if (const auto ids = read_ids(reader, object, "bos_token_id"); !ids.empty()) generation.bos_token_id = ids[0];
  if (reader.has("do_sample")) generation.do_sample = reader.boolean_or("do_sample", false);
  if (reader.has("temperature")) generation.temperature = reader.number("temperature");
  if (reader.has("top_p")) generation.top_p = reader.number("top_p");
  if (reader.has("min_p")) generation.min_p = reader.number("min_p");
  if (reader.has("repetition_penalty")) generation.repetition_penalty = reader.number("repetition_penalty");
  if (reader.has("top_k")) generation.top_k = int(reader.integer("top_k", 0, kTokenMax));
  return reader.status();
}

std::string existing(const fs::path& path) { return fs::exists(path) ? path.string() : std::string(); }

}  // namespace

Result<ObjectPointer> read_config(const std::string& path) {
  if (fs::is_directory(path)) return read_object((fs::path(path) / "config.json").string());
  if (fs::path(path).extension() == ".json") return read_object(path);
  return not_found(fmt::format("model '{}': expected a folder with config.json", path));
}

Result<std::shared_ptr<const json::array>> read_json_list(const std::string& path) {
  SW_ASSIGN(json::value root, read_json(path));
  if (!root.is_array()) return corrupt(fmt::format("{}: expected a JSON list", path));
  return std::make_shared<const json::array>(std::move(root.as_array()));
}

Result<ModelFolder> read_model_folder(const std::string& path) {
  SW_ASSIGN(const ObjectPointer config, read_config(path));
  ModelFolder folder;
  folder.path = path;
  const fs::path base = fs::is_directory(path) ? fs::path(path) : fs::path(path).parent_path();
  folder.name = fs::weakly_canonical(base).filename().string();
  if (const json::value* list = config->if_contains("architectures");
      list != nullptr && list->is_array() && !list->as_array().empty()) {
    if (const json::string* name = list->as_array()[0].if_string()) folder.architecture = std::string(*name);
  }
  ConfigReader reader(*config, "config.json");
  folder.context_tokens_max = int(reader.integer_or("max_position_embeddings", 0, 0, kTokenMax));
  SW_TRY(reader.status());
  SW_TRY(read_generation(*config, "config.json", folder.generation));
  if (const std::string file = existing(base / "generation_config.json"); !file.empty()) {
    SW_ASSIGN(const ObjectPointer generation, read_object(file));
    SW_TRY(read_generation(*generation, "generation_config.json", folder.generation));
  }
  folder.tokenizer_path = existing(base / "tokenizer.json");
  folder.tokenizer_config_path = existing(base / "tokenizer_config.json");
  folder.chat_template_path = existing(base / "chat_template.jinja");
  return folder;
}

}  // namespace spillway::models
