// PackStore: where the CPU's packed weights are found when they were packed before, and kept for the next start when
// not. While a PackScope lives, every pack_linear() on its thread asks the store first. Packing is then deterministic
// in the order of the calls, and a request names its place in it. Implemented by models/packed_weights.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "kernels/linear.h"

namespace spillway::kernels {

// Changes whenever packed bytes of the same weights do: another layout, another rounding. packing_test holds it against
// the bytes, which are the same for every instruction set.
constexpr int kPackingVersion = 2;

// One call of pack_linear: what it is about, and of which weights, so that another weight of the same shape is told
// apart: where they lie in the checkpoint, or of those made on the way a few of their bytes.
struct PackRequest {
  int64_t n = 0;
  int64_t k = 0;
  Precision precision = Precision::kFp32;
  PackedFormat format = PackedFormat::kF32;
  uint64_t of = 0;

  std::string name() const;
};

// Packed bytes that outlive what is loaded.
struct PackedBytes {
  std::span<const std::byte> data, scales;
};

class PackStore {
 public:
  virtual ~PackStore() = default;
  // Where in the checkpoint the bytes lie; a weight that is found need not be read then.
  virtual std::optional<uint64_t> locate(const std::byte* bytes) = 0;
  virtual std::optional<PackedBytes> find(const PackRequest& request) = 0;
  // What find() did not know and was packed now. The store may keep the tensors; it leaves borrowed ones.
  virtual void keep(const PackRequest& request, PackedLinear& packed) = 0;
};

class PackScope {
 public:
  explicit PackScope(PackStore* store);
  ~PackScope();
  PackScope(const PackScope&) = delete;
  PackScope& operator=(const PackScope&) = delete;

  // Of this thread's innermost scope; null outside of any.
  static PackStore* current();

 private:
  PackStore* before_;
};

}  // namespace spillway::kernels
