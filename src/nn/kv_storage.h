// KvStorage: the memory of the key-value pages, one region a layer: [pages, page_tokens, width]. Owned by the engine, which
// chooses how many pages and decides what each page id means (src/kv); written and read by the layers on the engine's
// thread. Not its job: counting, sharing or freeing pages.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace spillway::nn {

// Elements that one token takes in one layer. An MLA layer keeps its latent and rotary key as keys, and no values.
struct KvLayerLayout {
  int key_width = 0;
  int value_width = 0;

  int width() const { return key_width + value_width; }
};

struct KvLayout {
  std::vector<KvLayerLayout> layers;
  tensor::DType dtype = tensor::DType::kF32;

  int64_t bytes_per_token() const;
  int64_t bytes_per_page(int page_tokens) const { return bytes_per_token() * page_tokens; }
};

class KvStorage {
 public:
  // Reserves address space for all pages; the memory of a page becomes resident when it is first written.
  static Result<KvStorage> create(const KvLayout& layout, int page_tokens, int pages, tensor::Device device);

  const KvLayout& layout() const { return layout_; }
  int page_tokens() const { return page_tokens_; }
  int pages() const { return pages_; }
  int64_t bytes() const { return layout_.bytes_per_page(page_tokens_) * pages_; }

  // [pages, page_tokens, key_width] and [pages, page_tokens, value_width] of a layer.
  tensor::TensorView keys(int layer);
  tensor::TensorView values(int layer);

 private:
  KvStorage() = default;

  KvLayout layout_;
  int page_tokens_ = 0;
  int pages_ = 0;
  std::vector<tensor::Tensor> keys_;
  std::vector<tensor::Tensor> values_;
};

}  // namespace spillway::nn
