// Reads inference requests: JSON tensors become the same little-endian bytes that binary ones already are.
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "api/field_reader.h"
#include "api/kserve.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

constexpr int kNestingMax = 16;

// Appends the elements of "data", which may be flat or nested as the shape is.
class DataReader {
 public:
  DataReader(Datatype type, std::string& out) : type_(type), out_(out) {}

  bool read(const json::value& value, int depth = 0) {
    if (const json::array* items = value.if_array()) {
      if (depth >= kNestingMax) return fail("deeper nesting");
      for (const json::value& item : *items) {
        if (!read(item, depth + 1)) return false;
      }
      return true;
    }
    ++count_;
    return element(value);
  }

  int64_t count() const { return count_; }
  const std::string& found() const { return found_; }

 private:
  bool fail(std::string found) {
    found_ = std::move(found);
    return false;
  }

  template <class T>
  bool put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return true;
  }

  template <class T>
  bool integer(const json::value& value) {
    boost::system::error_code inexact;
    if (!value.is_number()) return fail(describe(value));
    const T number = value.to_number<T>(inexact);
    if (inexact) return fail(describe(value));
    return put(number);
  }

  bool element(const json::value& value) {
    switch (type_) {
      case Datatype::kBytes:
        if (!value.is_string()) return fail(describe(value));
        append_bytes_element(out_, value.get_string());
        return true;
      case Datatype::kBool:
        if (value.is_bool()) return put(uint8_t(value.get_bool()));
        return integer<uint8_t>(value);
      case Datatype::kUint8:
        return integer<uint8_t>(value);
      case Datatype::kUint16:
        return integer<uint16_t>(value);
      case Datatype::kUint32:
        return integer<uint32_t>(value);
      case Datatype::kUint64:
        return integer<uint64_t>(value);
      case Datatype::kInt8:
        return integer<int8_t>(value);
      case Datatype::kInt16:
        return integer<int16_t>(value);
      case Datatype::kInt32:
        return integer<int32_t>(value);
      case Datatype::kInt64:
        return integer<int64_t>(value);
      case Datatype::kFp32:
        return value.is_number() ? put(value.to_number<float>()) : fail(describe(value));
      case Datatype::kFp64:
        return value.is_number() ? put(value.to_number<double>()) : fail(describe(value));
      case Datatype::kFp16:
      case Datatype::kBf16:
        break;
    }
    return fail("a type that JSON cannot carry; send it as binary data");
  }

  Datatype type_;
  std::string& out_;
  int64_t count_ = 0;
  std::string found_;
};

class InferParser {
 public:
  InferParser(InferRequest& out, std::string_view binary) : out_(out), binary_(binary) {}

  std::optional<ApiError> read(const json::object& body) {
    FieldReader reader(body, "", failure_);
    reader.string("id", out_.id);
    if (const json::object* parameters = reader.object("parameters")) read_parameters(*parameters);
    const json::array* inputs = reader.array("inputs");
    if (inputs == nullptr || inputs->empty()) {
      reader.fail(ErrorKind::kInvalidFormat, "inputs", "expected an array of tensors, found none");
    }
    for (size_t i = 0; !failure_ && i < inputs->size(); ++i) read_input((*inputs)[i], i);
    if (const json::array* outputs = reader.array("outputs")) {
      for (size_t i = 0; !failure_ && i < outputs->size(); ++i) read_output((*outputs)[i], i);
    }
    if (!binary_.empty()) {
      reader.fail(ErrorKind::kInvalidFormat, "inputs",
                  fmt::format("expected binary data for the tensors alone, found {} bytes more", binary_.size()));
    }
    return failure_;
  }

 private:
  void read_parameters(const json::object& object) {
    FieldReader reader(object, "parameters", failure_);
    reader.boolean("binary_data_output", out_.binary_outputs);
    reader.boolean("truncate", out_.truncate);
    reader.integer("timeout", 0, int64_t{1} << 53, out_.timeout_us);
    reader.integer("priority", 0, int64_t{1} << 53, out_.priority);
  }

  void read_input(const json::value& value, size_t index) {
    const std::string path = fmt::format("inputs[{}]", index);
    static const json::object kNone;
    FieldReader reader(value.is_object() ? value.get_object() : kNone, path, failure_);
    if (!value.is_object()) return reader.fail(ErrorKind::kInvalidFormat, "", "expected an object");
    TensorIn tensor;
    reader.string("name", tensor.name);
    std::string type;
    reader.string("datatype", type);
    const auto datatype = datatype_of(type);
    if (!datatype) {
      return reader.fail(ErrorKind::kInvalidFormat, "datatype", "expected a type such as INT64, found '" + type + "'");
    }
    tensor.datatype = *datatype;
    const json::array* shape = reader.array("shape");
    if (shape == nullptr) return reader.fail(ErrorKind::kInvalidFormat, "shape", "expected an array, found nothing");
    for (const json::value& side : *shape) {
      boost::system::error_code inexact;
      tensor.shape.push_back(side.is_number() ? side.to_number<int64_t>(inexact) : -1);
      if (inexact) tensor.shape.back() = -1;
    }
    std::optional<int64_t> bytes;
    if (const json::object* parameters = reader.object("parameters")) {
      FieldReader inner(*parameters, path + ".parameters", failure_);
      inner.integer("binary_data_size", 0, int64_t{1} << 40, bytes);
      if (inner.find("shared_memory_region")) {
        inner.fail(ErrorKind::kUnsupported, "shared_memory_region", "shared memory is not offered by this server");
      }
    }
    if (failure_) return;
    if (bytes) {
      take_binary(reader, tensor, *bytes);
    } else {
      read_data(reader, tensor);
    }
    if (failure_) return;
    failure_ = check_tensor(tensor);
    out_.inputs.push_back(std::move(tensor));
  }

  void take_binary(FieldReader& reader, TensorIn& tensor, int64_t bytes) {
    if (uint64_t(bytes) > binary_.size()) {
      return reader.fail(ErrorKind::kInvalidFormat, "parameters.binary_data_size",
                         fmt::format("expected {} bytes after the JSON, found {}", bytes, binary_.size()));
    }
    tensor.data = binary_.substr(0, bytes);
    binary_.remove_prefix(bytes);
  }

  void read_data(FieldReader& reader, TensorIn& tensor) {
    const json::value* data = reader.find("data");
    if (data == nullptr || !data->is_array()) {
      return reader.fail(ErrorKind::kInvalidFormat, "data",
                         "expected an array, found " + (data ? describe(*data) : std::string("nothing")));
    }
    std::string& bytes = out_.storage.emplace_back();
    DataReader elements(tensor.datatype, bytes);
    if (!elements.read(*data)) {
      return reader.fail(ErrorKind::kInvalidFormat, "data",
                         fmt::format("expected {}, found {}", datatype_name(tensor.datatype), elements.found()));
    }
    const auto count = element_count(tensor.name, tensor.shape);
    if (!count.ok()) {
      failure_ = count.error();
    } else if (*count != elements.count()) {
      reader.fail(ErrorKind::kInvalidFormat, "data",
                  fmt::format("expected {} elements, as the shape says, found {}", *count, elements.count()));
    }
    tensor.data = bytes;
  }

  void read_output(const json::value& value, size_t index) {
    const std::string path = fmt::format("outputs[{}]", index);
    static const json::object kNone;
    FieldReader reader(value.is_object() ? value.get_object() : kNone, path, failure_);
    if (!value.is_object()) return reader.fail(ErrorKind::kInvalidFormat, "", "expected an object");
    OutputAsked output;
    output.binary = out_.binary_outputs;
    reader.string("name", output.name);
    if (const json::object* parameters = reader.object("parameters")) {
      FieldReader inner(*parameters, path + ".parameters", failure_);
      inner.boolean("binary_data", output.binary);
      inner.integer("classification", 0, 1 << 20, output.classification);
      if (inner.find("shared_memory_region")) {
        inner.fail(ErrorKind::kUnsupported, "shared_memory_region", "shared memory is not offered by this server");
      }
    }
    out_.outputs.push_back(std::move(output));
  }

  InferRequest& out_;
  std::string_view binary_;
  std::optional<ApiError> failure_;
};

}  // namespace

Parsed<InferRequest> parse_infer_request(std::string_view body, std::optional<size_t> json_bytes) {
  if (json_bytes && *json_bytes > body.size()) {
    return ApiError{ErrorKind::kInvalidFormat,
                    fmt::format("Inference-Header-Content-Length: expected at most the body's {} bytes, found {}",
                                body.size(), *json_bytes),
                    "", ""};
  }
  const size_t split = json_bytes.value_or(body.size());
  auto object = parse_body(body.substr(0, split));
  if (!object) return object.error();
  InferRequest out;
  InferParser parser(out, body.substr(split));
  if (auto failure = parser.read(*object)) return std::move(*failure);
  return out;
}

}  // namespace spillway::api
