#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <fmt/format.h>

#include "models/loader.h"

namespace spillway::models {
namespace {

namespace json = boost::json;

struct FamilyRow {
  std::string_view architecture;
  FamilyLoader load;  // null: known, but not a language model that this server runs
  std::string_view not_served;
};

constexpr FamilyRow kFamilies[] = {
    {"DeepseekV3ForCausalLM", load_deepseek_v3, ""},
    {"LlamaForCausalLM", load_llama, ""},
    {"Qwen2ForCausalLM", load_qwen2, ""},
    {"Qwen3ForCausalLM", load_qwen3, ""},
    {"BertModel", nullptr, "encoders are not served yet"},
    {"BertForSequenceClassification", nullptr, "encoders are not served yet"},
    {"BertForMaskedLM", nullptr, "encoders are not served yet"},
    {"BertForQuestionAnswering", nullptr, "encoders are not served yet"},
    {"RobertaModel", nullptr, "encoders are not served yet"},
    {"XLMRobertaModel", nullptr, "encoders are not served yet"},
    {"ResNetForImageClassification", nullptr, "vision models are not served yet"},
};

std::string served() {
  std::string list;
  for (const FamilyRow& row : kFamilies) {
    if (row.load != nullptr) list += fmt::format("{}{}", list.empty() ? "" : ", ", row.architecture);
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
    if (row.architecture != name) continue;
    if (row.load != nullptr) return row.load;
    return unsupported(fmt::format("architecture '{}': {}; expected one of {}", name, row.not_served, served()));
  }
  return unsupported(fmt::format("architecture '{}' is not supported; expected one of {}", name, served()));
}

}  // namespace spillway::models
