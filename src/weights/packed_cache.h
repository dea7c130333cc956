// PackedCache: one model's packed file in the cache folder: read if it is whole, ours and made from this checkpoint;
// otherwise written, within a bound and without filling the disk. Processes may share the folder: files are only ever
// renamed into place, one process writes at a time, and whoever has a file mapped keeps it when it is replaced or
// evicted. Used by the thread that loads, then by the one that writes.
#pragma once

#include <chrono>
#include <string>

#include "weights/packed_file.h"
#include "weights/packed_writer.h"

namespace spillway::weights {

struct PackedCacheOptions {
  // kAuto: written in the background once the model serves, given up when the program ends first. kOn: written while
  // loading, before the model serves.
  enum class Mode { kOff, kAuto, kOn };
  Mode mode = Mode::kOff;
  std::string folder;                           // empty: default_cache_folder()
  int64_t bytes_max = int64_t{64} << 30;        // of all packed files together; the least recently used go first
  std::chrono::milliseconds write_after{5000};  // kAuto: the first requests have the machine to themselves
};

// $XDG_CACHE_HOME/spillway, else ~/.cache/spillway; empty when neither variable is set.
std::string default_cache_folder();

// A packed file is not written when less than this share of its file system would stay free.
constexpr double kDiskShareFree = 0.1;

// Files and bytes in a cache folder.
struct CacheUse {
  int files = 0;
  int64_t bytes = 0;
};
CacheUse cache_use(const std::string& folder);

class PackedCache {
 public:
  // model: the checkpoint's folder; variant: what else tells its packed files apart ("bf16"). identity: all
  // that the packed bytes depend on.
  PackedCache(PackedCacheOptions options, const std::string& model, const std::string& variant, std::string identity);

  const PackedCacheOptions& options() const { return options_; }
  const std::string& path() const { return path_; }

  // The file, its bytes checked at its first use since the machine started or the file changed. kNotFound when there is
  // none or it was made from something else; other errors say why it cannot be used.
  Result<PackedFile> read(tensor::Stream& stream, const Progress& progress) const;

  // Writes the file and evicts what no longer fits. kCancelled by stop, or when another process is writing.
  Status write(std::span<const PackedSource> blobs, const StopWriting& stop) const;

 private:
  Status make_room(uint64_t bytes) const;

  PackedCacheOptions options_;
  std::string path_;
  std::string identity_;
};

}  // namespace spillway::weights
