#include "api/kserve.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>
#include <iterator>

#include "api/encode.h"

namespace spillway::api {
namespace {

static_assert(std::endian::native == std::endian::little);

struct Row {
  std::string_view name;
  size_t bytes;
};

// In the order of Datatype.
constexpr std::array<Row, 14> kTypes = {{{"BOOL", 1},
                                         {"UINT8", 1},
                                         {"UINT16", 2},
                                         {"UINT32", 4},
                                         {"UINT64", 8},
                                         {"INT8", 1},
                                         {"INT16", 2},
                                         {"INT32", 4},
                                         {"INT64", 8},
                                         {"FP16", 2},
                                         {"FP32", 4},
                                         {"FP64", 8},
                                         {"BYTES", 0},
                                         {"BF16", 2}}};

constexpr int64_t kElementsMax = int64_t{1} << 28;

void append_shape(std::string& out, const std::vector<int64_t>& shape) {
  fmt::format_to(std::back_inserter(out), R"("shape":[{}])", fmt::join(shape, ","));
}

size_t binary_size(const TensorOut& tensor) {
  if (tensor.datatype != Datatype::kBytes) return tensor.values.size() * sizeof(float);
  size_t size = 0;
  for (const std::string& each : tensor.strings) size += 4 + each.size();
  return size;
}

void append_output(std::string& out, const TensorOut& tensor) {
  out += R"({"name":)";
  append_json_string(out, tensor.name);
  fmt::format_to(std::back_inserter(out), R"(,"datatype":"{}",)", datatype_name(tensor.datatype));
  append_shape(out, tensor.shape);
  if (tensor.binary) {
    fmt::format_to(std::back_inserter(out), R"(,"parameters":{{"binary_data_size":{}}})", binary_size(tensor));
  } else if (tensor.datatype == Datatype::kBytes) {
    out += R"(,"data":[)";
    for (const std::string& each : tensor.strings) {
      if (out.back() != '[') out += ',';
      append_json_string(out, each);
    }
    out += ']';
  } else {
    out += R"(,"data":)";
    append_floats(out, tensor.values);
  }
  out += '}';
}

}  // namespace

std::string_view datatype_name(Datatype type) { return kTypes[size_t(type)].name; }
size_t datatype_bytes(Datatype type) { return kTypes[size_t(type)].bytes; }

std::optional<Datatype> datatype_of(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return Datatype(i);
  }
  return std::nullopt;
}

Parsed<int64_t> element_count(const std::string& name, const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t side : shape) {
    if (side < 0 || side > kElementsMax || (side > 0 && count > kElementsMax / side)) {
      return ApiError{ErrorKind::kInvalidFormat,
                      fmt::format("input '{}': expected a shape of at most {} elements, found [{}]", utf8_lossy(name),
                                  kElementsMax, fmt::join(shape, ",")),
                      "", ""};
    }
    count *= side;
  }
  return count;
}

std::optional<ApiError> check_tensor(const TensorIn& tensor) {
  const auto count = element_count(tensor.name, tensor.shape);
  if (!count.ok()) return count.error();
  const auto wrong = [&](std::string expected, std::string found) {
    return ApiError{ErrorKind::kInvalidFormat,
                    fmt::format("input '{}': expected {} for {} of shape [{}], found {}", utf8_lossy(tensor.name),
                                expected, datatype_name(tensor.datatype), fmt::join(tensor.shape, ","), found),
                    "", ""};
  };
  if (tensor.datatype != Datatype::kBytes) {
    const size_t bytes = size_t(*count) * datatype_bytes(tensor.datatype);
    if (tensor.data.size() == bytes) return std::nullopt;
    return wrong(fmt::format("{} bytes", bytes), fmt::format("{}", tensor.data.size()));
  }
  std::string_view rest = tensor.data;
  for (int64_t i = 0; i < *count; ++i) {
    uint32_t size = 0;
    if (rest.size() < 4) return wrong(fmt::format("{} elements", *count), fmt::format("{}", i));
    std::memcpy(&size, rest.data(), 4);
    rest.remove_prefix(4);
    if (rest.size() < size) {
      return wrong(fmt::format("{} bytes in element {}", size, i), fmt::format("{}", rest.size()));
    }
    rest.remove_prefix(size);
  }
  if (!rest.empty()) return wrong(fmt::format("{} elements", *count), fmt::format("{} bytes more", rest.size()));
  return std::nullopt;
}

std::vector<std::string_view> bytes_elements(std::string_view data) {
  std::vector<std::string_view> out;
  while (data.size() >= 4) {
    uint32_t size = 0;
    std::memcpy(&size, data.data(), 4);
    data.remove_prefix(4);
    if (data.size() < size) break;
    out.push_back(data.substr(0, size));
    data.remove_prefix(size);
  }
  return out;
}

void append_bytes_element(std::string& out, std::string_view element) {
  const auto size = static_cast<uint32_t>(element.size());
  out.append(reinterpret_cast<const char*>(&size), 4);
  out += element;
}

InferBody infer_response(const InferResponse& response) {
  InferBody body;
  std::string& out = body.bytes;
  out += R"({"model_name":)";
  append_json_string(out, response.model);
  out += R"(,"model_version":)";
  append_json_string(out, response.version);
  if (!response.id.empty()) {
    out += R"(,"id":)";
    append_json_string(out, response.id);
  }
  out += R"(,"outputs":[)";
  bool binary = false;
  for (const TensorOut& tensor : response.outputs) {
    if (out.back() != '[') out += ',';
    append_output(out, tensor);
    binary |= tensor.binary;
  }
  out += "]}";
  if (!binary) return body;
  body.json_bytes = out.size();
  for (const TensorOut& tensor : response.outputs) {
    if (!tensor.binary) continue;
    if (tensor.datatype == Datatype::kBytes) {
      for (const std::string& each : tensor.strings) append_bytes_element(out, each);
    } else {
      out.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
    }
  }
  return body;
}

}  // namespace spillway::api
