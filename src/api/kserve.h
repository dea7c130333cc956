// KServe's Open Inference Protocol v2 as plain values, and its HTTP form: JSON with Triton's binary tensor extension.
// gRPC carries the same values in messages of its own. Pure functions, any thread. Not its job: what a model's tensors
// are (server/kserve).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace spillway::api {

enum class Datatype : uint8_t {
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kFp32,
  kFp64,
  kBytes,
  kBf16,
};
std::string_view datatype_name(Datatype type);  // "INT64", ...
std::optional<Datatype> datatype_of(std::string_view name);
size_t datatype_bytes(Datatype type);  // of an element; 0 for kBytes

// An input tensor. data is little-endian elements in row order; of kBytes each is preceded by its length in four bytes.
// It is checked: as many elements as the shape says.
struct TensorIn {
  std::string name;
  Datatype datatype = Datatype::kFp32;
  std::vector<int64_t> shape;
  std::string_view data;
};

struct OutputAsked {
  std::string name;
  bool binary = false;     // HTTP: after the JSON
  int classification = 0;  // Triton's extension: so many best classes as "value:index:label"
};

struct InferRequest {
  std::string id;
  std::optional<int64_t> timeout_us;  // Triton's "timeout"
  int64_t priority = 0;               // Triton's: 1 is the first, 0 the default
  bool truncate = false;              // ours: long texts are cut
  std::vector<TensorIn> inputs;
  std::vector<OutputAsked> outputs;  // empty: the model's default
  bool binary_outputs = false;       // where outputs do not say
  std::deque<std::string> storage;   // what data may point into
};

struct TensorOut {
  std::string name;
  Datatype datatype = Datatype::kFp32;  // kFp32 or kBytes
  std::vector<int64_t> shape;
  std::vector<float> values;
  std::vector<std::string> strings;
  bool binary = false;
};

struct InferResponse {
  std::string model, version, id;
  std::vector<TensorOut> outputs;
};

// Number of elements; an error when a dimension is negative or the product absurd.
Parsed<int64_t> element_count(const std::string& name, const std::vector<int64_t>& shape);
// Whether data holds just what datatype and shape say.
std::optional<ApiError> check_tensor(const TensorIn& tensor);

// json_bytes: of Inference-Header-Content-Length; none: the body is JSON alone. The body must outlive the request.
Parsed<InferRequest> parse_infer_request(std::string_view body, std::optional<size_t> json_bytes);

// json_bytes is set when tensors follow the JSON.
struct InferBody {
  std::string bytes;
  std::optional<size_t> json_bytes;
};
InferBody infer_response(const InferResponse& response);

// The elements of a kBytes tensor.
std::vector<std::string_view> bytes_elements(std::string_view data);
void append_bytes_element(std::string& out, std::string_view element);

}  // namespace spillway::api
