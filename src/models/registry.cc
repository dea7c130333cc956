#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "models/loader.h"
#include "models/one_shot_loader.h"

namespace spillway::models {
namespace {

namespace json = boost::json;

struct FamilyRow {
  std::string_view architecture;
  FamilyLoader load;
};

constexpr FamilyRow kFamilies[] = {
    {"DeepseekV3ForCausalLM", load_deepseek_v3},
    {"LlamaForCausalLM", load_llama},
    {"Qwen2ForCausalLM", load_qwen2},
    {"Qwen3ForCausalLM", load_qwen3},
};

std::string served() {
  std::string list;
  for (const FamilyRow& row : kFamilies) {
    list += fmt::format("{}{}", list.empty() ? "" : ", ", row.architecture);
  }
  return list;
}

}  // namespace

Result<FamilyLoader> find_family(const json::object& config) {
  const json::value* list = config.if_contains("architectures");
  if (list == nullptr || !list->is_array() || list->as_array().empty() || !list->as_array()[0].is_string()) {
    return invalid(fmt::format("config.json: expected 'architectures' with one of {}, found none", served()));
  }
  const std::string name(list->as_array()[0].as_string());
  for (const FamilyRow& row : kFamilies) {
    if (row.architecture == name) return row.load;
  }
  if (is_one_shot(config)) {
    return unsupported(fmt::format("architecture '{}' is no language model: it answers in one pass; expected one of {}",
                                   name, served()));
  }
  return unsupported(fmt::format("architecture '{}' is not supported; expected one of {}", name, served()));
}

}  // namespace spillway::models
