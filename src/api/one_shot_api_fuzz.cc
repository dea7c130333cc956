// Any bytes as the body of the endpoints of one-shot models: an error that is the client's, or a request that holds
// what it says.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/embeddings.h"
#include "api/kserve.h"
#include "api/multipart.h"
#include "api/rerank.h"
#include "api/tei.h"
#include "api/tf_serving.h"

namespace {

using namespace spillway::api;

template <class T>
void check(const Parsed<T>& parsed) {
  if (!parsed.ok() && (parsed.error().message.empty() || parsed.error().http_status() >= 500)) std::abort();
}

void check_infer(std::string_view body, std::optional<size_t> json_bytes) {
  const auto request = parse_infer_request(body, json_bytes);
  check(request);
  if (!request.ok()) return;
  for (const TensorIn& tensor : request->inputs) {
    if (check_tensor(tensor)) std::abort();
    if (tensor.datatype != Datatype::kBytes) continue;
    const auto count = element_count(tensor.name, tensor.shape);
    if (int64_t(bytes_elements(tensor.data).size()) != *count) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  check(parse_embeddings_request(body));
  check(parse_rerank_request(body));
  check(parse_score_request(body));
  check(parse_classify_request(body));
  check(parse_tei_embed_request(body));
  check(parse_tei_similarity_request(body));
  check(parse_tei_predict_request(body));
  check(parse_tei_decode_request(body));
  check(parse_tf_predict_request(body));
  check(parse_multipart("multipart/form-data; boundary=x", body));
  check_infer(body, std::nullopt);
  // The JSON's length as the body has it, at its first line break.
  const size_t end = body.find('\n');
  if (end != std::string_view::npos) check_infer(body, end);
  (void)decode_base64(body);
  return 0;
}
