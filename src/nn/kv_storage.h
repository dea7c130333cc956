// KvStorage: the memory of the key-value pages. A page holds page_tokens tokens of every layer: page p of layer l lies
// at layer_base(l) + p * page_stride_bytes(l). On a CPU a page's layers lie together, so that memory becomes resident
// page by page; on a GPU a layer's pages do: attention reads one layer at a time, from few large pages of the device's
// address translation. Owned by the engine, which chooses how many pages and decides what each
// page id means (src/kv); written and read by the layers on the engine's thread. Not its job: counting, sharing or
// freeing pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace spillway::nn {

struct KvLayout {
  // Elements that one token takes in each layer: keys and values of all heads, or MLA's latent and rotary key.
  std::vector<int> layer_widths;
  tensor::DType dtype = tensor::DType::kF32;  // f32, bf16 or f16

  int64_t bytes_per_token() const;
  int64_t bytes_per_page(int page_tokens) const { return bytes_per_token() * page_tokens; }
};

class KvStorage {
 public:
  // page_tokens: a multiple of 16. The memory of a page becomes resident when it is first written.
  // On a GPU the memory is taken at once.
  static Result<KvStorage> create(const KvLayout& layout, int page_tokens, int pages, tensor::Device device);

  const KvLayout& layout() const { return layout_; }
  int page_tokens() const { return page_tokens_; }
  int pages() const { return pages_; }
  // On CUDA one more than the engine knows of: rows that only fill up a batch write there.
  int padding_page() const { return pages_; }
  int64_t bytes() const { return layout_.bytes_per_page(page_tokens_) * pages_; }

  std::byte* layer_base(int layer) const;
  int64_t page_stride_bytes(int layer) const;

 private:
  KvStorage() = default;

  KvLayout layout_;
  int page_tokens_ = 0;
  int pages_ = 0;
  struct Place {
    int64_t offset, page_stride;  // bytes
  };
  const Place& place(int layer) const;
  std::vector<Place> layers_;
  tensor::Tensor data_;
};

}  // namespace spillway::nn
