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
  int64_t offset = 0;
  for (const int width : layout.layer_widths) {
    storage.layer_offsets_.push_back(offset);
    offset += int64_t(width) * page_tokens * int64_t(tensor::size_of(layout.dtype));
  }
  const int spare = device.kind == tensor::DeviceKind::kCuda ? 1 : 0;
  try {
    storage.data_ = tensor::Tensor(tensor::DType::kU8, {pages + spare, offset}, device);
  } catch (const std::runtime_error& error) {
    return Error{ErrorCode::kResourceExhausted, error.what()};
  }
  return storage;
}

std::byte* KvStorage::layer_base(int layer) const {
  SW_CHECK(layer >= 0 && layer < int(layer_offsets_.size()), "a layer that the layout does not have");
  return data_.view().data + layer_offsets_[size_t(layer)];
}

}  // namespace spillway::nn
