// What a published model folder holds beside the weights: its config, the sampling it recommends, where its tokenizer
// is. Values; any thread.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace spillway::models {

// generation_config.json, completed from config.json. Absent values are not recommended by the model.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
};

struct ModelFolder {
  std::string path;
  std::string name;  // the folder's own name
  std::string architecture;
  int context_tokens_max = 0;
  GenerationConfig generation;
  std::string tokenizer_path;         // tokenizer.json; empty when the folder has none
  std::string tokenizer_config_path;  // tokenizer_config.json, likewise
  std::string chat_template_path;     // chat_template.jinja, as newer folders keep it; likewise
};

Result<ModelFolder> read_model_folder(const std::string& path);

// config.json of a folder, or the file itself.
Result<std::shared_ptr<const boost::json::object>> read_config(const std::string& path);

// A JSON file whose root is a list.
Result<std::shared_ptr<const boost::json::array>> read_json_list(const std::string& path);

}  // namespace spillway::models
