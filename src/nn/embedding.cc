#include "nn/embedding.h"

#include "kernels/elementwise.h"

namespace spillway::nn {

Result<Embedding> Embedding::load(const weights::WeightScope& scope, int64_t vocabulary, int64_t hidden,
                                  LoadContext& context) {
  SW_ASSIGN(weights::StoredTensor stored, scope.tensor("weight", {vocabulary, hidden}));
  stored.keep();
  const int64_t bytes = int64_t(stored.view().bytes());
  context.totals.parameters += vocabulary * hidden;
  context.totals.bytes += bytes;
  context.totals.decode_bytes += double(bytes) / double(vocabulary);
  return Embedding(std::move(stored));
}

void Embedding::apply(tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) const {
  kernels::embedding(stored_.view(), ids, y, stream);
  stored_.read_places(ids.shape[0]);
}

}  // namespace spillway::nn
