#include "nn/kv_storage.h"

#include <fmt/format.h>

#include <stdexcept>

namespace spillway::nn {

int64_t KvLayout::bytes_per_token() const {
  int64_t elements = 0;
  for (const int width : layer_widths) elements += width;
  return elements * int64_t(tensor::size_of(dtype));
}

Result<KvStorage> KvStorage::create(const KvLayout& layout, int page_tokens, int pages, tensor::Device device) {
  SW_TRY(tensor::check_available(device));
  if (page_tokens < 16 || page_tokens % 16 != 0) {
    return invalid(fmt::format("page tokens: expected a multiple of 16, found {}", page_tokens));
  }
  if (pages < 1) return invalid(fmt::format("pages: expected at least 1, found {}", pages));
  KvStorage storage;
  storage.layout_ = layout;
  storage.page_tokens_ = page_tokens;
  storage.pages_ = pages;
  const bool on_gpu = device.kind == tensor::DeviceKind::kCuda;
  const int64_t all_pages = pages + (on_gpu ? 1 : 0), page_bytes = layout.bytes_per_page(page_tokens);
  int64_t offset = 0;
  for (const int width : layout.layer_widths) {
    const int64_t bytes = int64_t(width) * page_tokens * int64_t(tensor::size_of(layout.dtype));
    storage.layers_.push_back({offset, on_gpu ? bytes : page_bytes});
    offset += on_gpu ? bytes * all_pages : bytes;
  }
  try {
    storage.data_ = tensor::Tensor(tensor::DType::kU8, {all_pages, page_bytes}, device);
  } catch (const std::runtime_error& error) {
    return Error{ErrorCode::kResourceExhausted, error.what()};
  }
  return storage;
}

const KvStorage::Place& KvStorage::place(int layer) const {
  SW_CHECK(layer >= 0 && layer < int(layers_.size()), "a layer that the layout does not have");
  return layers_[size_t(layer)];
}

std::byte* KvStorage::layer_base(int layer) const { return data_.view().data + place(layer).offset; }
int64_t KvStorage::page_stride_bytes(int layer) const { return place(layer).page_stride; }

}  // namespace spillway::nn
