// PackStore: where the CPU's packed weights are found when they were packed before, and kept for the next start when
// not. PackLater: who packs what is used where the checkpoint has it meanwhile. While a PackScope lives, every
// pack_linear() on its thread asks the store first, then whether to pack later. Packing is then deterministic in the
// order of the calls, and a request names its place in it. Implemented by models/packed_weights.h and late_packing.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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
  int place = 0;  // of the call among all, as the store counts them

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
  // Sets the request's place.
  virtual std::optional<PackedBytes> find(PackRequest& request) = 0;
  // What find() did not know and was packed now. The store may keep the tensors; it leaves borrowed ones.
  virtual void keep(const PackRequest& request, PackedLinear& packed) = 0;
};

class PackLater {
 public:
  virtual ~PackLater() = default;
  // Whether the weight's bytes stay readable where they are for as long as it is packed later.
  virtual bool take(const tensor::TensorView& weight) = 0;
  virtual void add(const PackRequest& request, std::shared_ptr<LateWeight> weight) = 0;
};

class PackScope {
 public:
  explicit PackScope(PackStore* store, PackLater* later = nullptr);
  ~PackScope();
  PackScope(const PackScope&) = delete;
  PackScope& operator=(const PackScope&) = delete;

  // Of this thread's innermost scope; null outside of any, or where it has none.
  static PackStore* store();
  static PackLater* later();

 private:
  PackStore* store_before_;
  PackLater* later_before_;
};

}  // namespace spillway::kernels
