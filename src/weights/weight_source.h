// WeightSource: where a model's tensors come from: a checkpoint folder or a generator of random weights. Owned by the
// model that was loaded from it (tensors used in place point into it); used from one thread at a time.
// Not its job: shapes that a layer expects, repacking, quantising.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace spillway::weights {

// Called as tensors are consumed, from the thread that consumed them.
using Progress = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

// The accepted types of a weight that is computed with.
inline constexpr tensor::DType kFloatTypes[] = {tensor::DType::kBF16, tensor::DType::kF32, tensor::DType::kF16};
inline constexpr tensor::DType kMatrixTypes[] = {tensor::DType::kF8E4M3, tensor::DType::kBF16, tensor::DType::kF32,
                                                 tensor::DType::kF16};

class WeightSource;

// One tensor as stored, in host memory. Dropping it says that its bytes will not be read again: their pages are given
// back, so that a repacked model is not resident twice. keep() says that they are used in place instead.
class StoredTensor {
 public:
  // owned: the bytes themselves, when the source generated them.
  StoredTensor(const WeightSource* source, tensor::TensorView view, tensor::Tensor owned = {});
  StoredTensor(StoredTensor&& other) noexcept;
  StoredTensor& operator=(StoredTensor&& other) noexcept;
  ~StoredTensor() { release(); }

  const tensor::TensorView& view() const { return view_; }
  const tensor::Shape& shape() const { return view_.shape; }

  // Whether the bytes are the source's own, and stay readable as long as it.
  bool in_place() const { return owned_.empty(); }

  // From now on the bytes are used in place, until this object or the source is gone.
  void keep();

  // Says that so many places of kept bytes were read here and there. The system maps up to a large page around each;
  // every kPlacesMax they are given back, so that a table of which rows are used does not become resident as a whole.
  void read_places(int64_t places) const;
  static constexpr int64_t kPlacesMax = 16;

 private:
  void release();

  const WeightSource* source_;
  tensor::TensorView view_;
  tensor::Tensor owned_;
  bool kept_ = false;
  mutable int64_t places_ = 0;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual bool contains(const std::string& name) const = 0;

  // The tensor of that name. A checkpoint ignores `shape` and `dtypes` (WeightScope checks); a generator makes that
  // shape, in the first accepted type that it can stand for.
  virtual Result<StoredTensor> open(const std::string& name, const tensor::Shape& shape,
                                    std::span<const tensor::DType> dtypes) const = 0;

  // All bytes that open() can give; 0 when unknown.
  virtual int64_t bytes_total() const = 0;

  // Names in the checkpoint, sorted; empty for a generator.
  virtual std::vector<std::string> names() const = 0;

  // A text that differs when the checkpoint's files do: of each file its name, size, time of change, and checksums of
  // its header and of samples of its data. Empty for a generator.
  virtual std::string identity() const { return ""; }

  // Where in the checkpoint's files the byte lies: a number that is the same at every start. Nothing when it is not
  // theirs.
  virtual std::optional<uint64_t> locate(const std::byte*) const { return {}; }

  // Whoever takes a tensor uses its bytes in place, whatever becomes of the StoredTensor, until giving it back. False
  // when they are not a file's. Taken by the loading thread, given back by any.
  bool take(const tensor::TensorView& view) const;
  void give_back(const tensor::TensorView& view) const;
  // Whether nothing is taken; any thread.
  bool settled() const { return taken_count_ == 0; }

  // How the tensors will be read from now on: all of them, so that the system reads ahead; or few, so that it does not,
  // and what is resident is given back.
  virtual void expect_all() const {}
  virtual void expect_few() const {}

  void set_progress(Progress progress) { progress_ = std::move(progress); }

  // What weights made from this source point into, to live as long as it; mapped_bytes of it are a file's. What was
  // attached last goes first.
  void attach(std::shared_ptr<void> kept, int64_t mapped_bytes) {
    attached_.push_back(std::move(kept));
    mapped_bytes_ += mapped_bytes;
  }
  // Of what is attached, and of the tensors that were taken.
  int64_t mapped_bytes() const { return mapped_bytes_; }

 protected:
  // Of a source whose bytes what is attached may be reading: in its destructor.
  void detach() {
    while (!attached_.empty()) attached_.pop_back();
  }
  bool taken(const std::byte* data) const;

 private:
  friend class StoredTensor;
  virtual void release(const tensor::TensorView& view) const = 0;
  void consumed(const tensor::TensorView& view) const;

  Progress progress_;
  std::vector<std::shared_ptr<void>> attached_;
  mutable int64_t mapped_bytes_ = 0;
  mutable std::unordered_map<const std::byte*, std::atomic<int>> taken_;  // how often; no entries after loading
  mutable std::atomic<int64_t> taken_count_{0};
  mutable int64_t bytes_done_ = 0;
};

// A Hugging Face folder: model.safetensors, or model.safetensors.index.json and its shards (mapped and checked in
// parallel).
Result<std::unique_ptr<WeightSource>> open_checkpoint(const std::string& folder);

// One safetensors file, whatever its name.
Result<std::unique_ptr<WeightSource>> open_safetensors(const std::string& path);

struct RandomWeights {
  tensor::DType dtype = tensor::DType::kBF16;  // of what is not quantised
  bool fp8_blocks = false;                     // projections come as F8_E4M3 with weight_scale_inv
  uint64_t seed = 1;
};

// Every name exists but what a checkpoint of this form would not hold; the same seed gives the same bits on every run.
std::unique_ptr<WeightSource> random_weights(RandomWeights options);

}  // namespace spillway::weights
