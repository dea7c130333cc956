#include <fmt/format.h>

#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "models/one_shot_loader.h"

namespace spillway::models {
namespace {

namespace json = boost::json;

// Kinds of device that a family's kernels are there for.
enum Devices : unsigned { kCpu = 1, kCuda = 2 };

struct FamilyRow {
  std::string_view architecture;
  OneShotLoader load;
  unsigned devices;
};

constexpr FamilyRow kFamilies[] = {
    {"BertModel", load_encoder, kCpu | kCuda},
    {"BertForSequenceClassification", load_encoder, kCpu | kCuda},
    {"BertForMaskedLM", load_encoder, kCpu | kCuda},
    {"DistilBertModel", load_encoder, kCpu | kCuda},
    {"DistilBertForSequenceClassification", load_encoder, kCpu | kCuda},
    {"DistilBertForMaskedLM", load_encoder, kCpu | kCuda},
    {"RobertaModel", load_encoder, kCpu | kCuda},
    {"RobertaForSequenceClassification", load_encoder, kCpu | kCuda},
    {"RobertaForMaskedLM", load_encoder, kCpu | kCuda},
    {"XLMRobertaModel", load_encoder, kCpu | kCuda},
    {"XLMRobertaForSequenceClassification", load_encoder, kCpu | kCuda},
    {"XLMRobertaForMaskedLM", load_encoder, kCpu | kCuda},
    {"ModernBertModel", load_encoder, kCpu | kCuda},
    {"ModernBertForSequenceClassification", load_encoder, kCpu | kCuda},
    {"ModernBertForMaskedLM", load_encoder, kCpu | kCuda},
    {"NomicBertModel", load_encoder, kCpu | kCuda},
    {"NomicBertForSequenceClassification", load_encoder, kCpu | kCuda},
    {"NomicBertForMaskedLM", load_encoder, kCpu | kCuda},
    {"ResNetForImageClassification", load_resnet, kCpu | kCuda},
};

std::string name_of_architecture(const json::object& config) {
  const json::value* list = config.if_contains("architectures");
  if (list == nullptr || !list->is_array() || list->as_array().empty() || !list->as_array()[0].is_string()) return "";
  return std::string(list->as_array()[0].as_string());
}

const FamilyRow* find_row(const json::object& config) {
  const std::string name = name_of_architecture(config);
  for (const FamilyRow& row : kFamilies) {
    if (row.architecture == name) return &row;
  }
  return nullptr;
}

std::string served(unsigned device) {
  std::string list;
  for (const FamilyRow& row : kFamilies) {
    if ((row.devices & device) != 0) list += fmt::format("{}{}", list.empty() ? "" : ", ", row.architecture);
  }
  return list.empty() ? "none" : list;
}

}  // namespace

bool is_one_shot(const json::object& config) { return find_row(config) != nullptr; }

Result<OneShotLoader> find_one_shot_family(const json::object& config, tensor::Device device) {
  const unsigned kind = device.kind == tensor::DeviceKind::kCuda ? kCuda : kCpu;
  const FamilyRow* row = find_row(config);
  if (row == nullptr) {
    return unsupported(fmt::format("architecture '{}' is not supported; expected one of {}",
                                   name_of_architecture(config), served(kind)));
  }
  if ((row->devices & kind) != 0) return row->load;
  return unsupported(fmt::format("architecture '{}' runs on the CPU only, not on {}: set the device to cpu",
                                 row->architecture, to_string(device)));
}

}  // namespace spillway::models
