#include "nn/embedding.h"

#include "kernels/elementwise.h"

namespace spillway::nn {

Result<Embedding> Embedding::load(const weights::WeightScope& scope, int64_t vocabulary, int64_t hidden,
                                  LoadContext& context) {
  SW_ASSIGN(weights::StoredTensor stored, scope.tensor("weight", {vocabulary, hidden}));
  const int64_t bytes = int64_t(stored.view().bytes());
  context.totals.parameters += vocabulary * hidden;
  context.totals.bytes += bytes;
  context.totals.decode_bytes += double(bytes) / double(vocabulary);
  Embedding embedding;
  if (context.stream.device().kind == tensor::DeviceKind::kCpu) {
    stored.keep();
    embedding.table_ = stored.view();
    embedding.stored_.emplace(std::move(stored));
  } else {
    embedding.placed_ = tensor::Tensor(stored.view().dtype, stored.shape(), context.stream.device());
    context.stream.upload(embedding.placed_.view().data, stored.view().data, stored.view().bytes());
    embedding.table_ = embedding.placed_.view();
  }
  return embedding;
}

void Embedding::apply(tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) const {
  kernels::embedding(table_, ids, y, stream);
  if (stored_) stored_->read_places(ids.shape[0]);
}

}  // namespace spillway::nn
