// PackedWeights: a model's packed weights as a file: taken from the cache in place when they are there, remembered and
// written when they are not. Made by load_model(), kept by the model's WeightSource until the layers are gone; used by
// the loading thread, then by who packs later, then by a writing thread of its own.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "kernels/pack_store.h"
#include "weights/packed_cache.h"

namespace spillway::models {

class PackedWeights final : public kernels::PackStore {
 public:
  // Looks into the cache. What cannot be used is said in one line of the log and written anew.
  // source: keeps this and so outlives it.
  PackedWeights(const weights::WeightSource& source, weights::PackedCache cache, tensor::Stream& stream,
                const weights::Progress& progress);
  ~PackedWeights() override;  // gives up writing

  std::optional<uint64_t> locate(const std::byte* bytes) override { return source_.locate(bytes); }
  std::optional<kernels::PackedBytes> find(kernels::PackRequest& request) override;
  void keep(const kernels::PackRequest& request, kernels::PackedLinear& packed) override;
  // The same of what was packed later, from one thread at a time: the bytes stay as long as the owner.
  void keep(const kernels::PackRequest& request, const kernels::PackedBytes& bytes, std::shared_ptr<const void> owner);

  // Bytes used in place.
  int64_t mapped_bytes() const { return file_ ? int64_t(file_->bytes()) : 0; }

  // After the last weight: writes the file, as the cache's mode says at once or in the background, unless all came from
  // it.
  void finish();

 private:
  void remember(const std::string& name, std::span<const std::byte> bytes);
  void write();
  void write_later();

  const weights::WeightSource& source_;
  weights::PackedCache cache_;
  std::optional<weights::PackedFile> file_;
  int requests_ = 0;
  bool complete_ = true;  // everything so far came from the file
  std::vector<tensor::Tensor> owned_;
  std::vector<std::shared_ptr<const void>> owners_;
  std::vector<weights::PackedSource> blobs_;

  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread writer_;
};

}  // namespace spillway::models
