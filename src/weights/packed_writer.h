// Writes a packed file whole or not at all: into a nameless neighbour first, synced, then renamed over its name. Not
// its job: whether and where to write (packed_cache.h).
#pragma once

#include <functional>
#include <span>
#include <string>

#include "base/result.h"
#include "weights/packed_file.h"

namespace spillway::weights {

// A blob to write; the bytes stay until the writing ends.
struct PackedSource {
  std::string name;
  uint64_t tag = 0;
  std::span<const std::byte> bytes;
};

// Asked before each block; true ends the writing with kCancelled.
using StopWriting = std::function<bool()>;

// What unfinished files of `path` are called: path + kUnfinished + six characters.
inline constexpr const char* kUnfinished = ".unfinished-";

Status write_packed_file(const std::string& path, const std::string& identity, std::span<const PackedSource> blobs,
                         const StopWriting& stop);

// Bytes that the file will have.
uint64_t packed_file_bytes(const std::string& identity, std::span<const PackedSource> blobs);

}  // namespace spillway::weights
