// PackedFile: the weights of one model as the kernels want them, in one file that is mapped and used in place: no copy,
// no memory but the page cache, which processes share. Named blobs of bytes with a tag of their writer's own; what they
// mean is nn/packed_weights.h. Written by packed_writer.h, found by packed_cache.h.
//
// Layout, little-endian:
//   0    magic "SPWPACK1", u32 version, u32 0, u64 file bytes, u64 head bytes, u64 data begin, u64 identity bytes,
//        u64 blobs, u64 checksum of these 64 bytes (with 0 here) and the head
//   64   the head: the identity (text: what the blobs were made from), then for each blob u64 begin, u64 bytes, u64
//   tag,
//        u32 name bytes and the name, then a u64 checksum of each kPackedBlock bytes of data
//   data begin, a multiple of 2 MiB: the blobs, in order, each aligned to kPackedAlignment, zeros between
// A file is never changed in place: a new one is renamed over it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "tensor/stream.h"
#include "weights/mapped_file.h"
#include "weights/weight_source.h"

namespace spillway::weights {

constexpr uint32_t kPackedVersion = 1;
constexpr uint64_t kPackedHeaderBytes = 64;
constexpr uint64_t kPackedBlock = uint64_t{4} << 20;
constexpr uint64_t kPackedDataAlignment = uint64_t{2} << 20;
constexpr uint64_t kPackedAlignment = 64;

struct PackedEntry {
  std::string name;
  uint64_t tag = 0;
  uint64_t begin = 0;  // from the start of the file
  uint64_t bytes = 0;
};

struct PackedHead {
  uint64_t file_bytes = 0;
  uint64_t data_begin = 0;
  std::string identity;
  std::vector<PackedEntry> entries;
  std::vector<uint64_t> block_sums;  // filled by the writer as the data go by
};

// Where the blobs of these names, tags and sizes will lie.
PackedHead plan_packed_file(std::string identity, std::vector<PackedEntry> entries);

// The first data_begin bytes of the file.
std::vector<std::byte> encode_packed_head(const PackedHead& head);

// The head of untrusted bytes: the start of a file of file_bytes bytes, at least up to its data. Every range that comes
// out lies in the file's data, in order and without overlap; names are unique.
Result<PackedHead> parse_packed_head(std::span<const std::byte> start, uint64_t file_bytes);

struct PackedBlob {
  std::span<const std::byte> bytes;
  uint64_t tag = 0;
};

class PackedFile {
 public:
  // Maps the file and checks its head; the data are checked by verify().
  static Result<PackedFile> open(const std::string& path);

  const std::string& identity() const { return head_.identity; }
  uint64_t bytes() const { return head_.file_bytes; }

  // Asks the system to read the data ahead, into large pages: a step reads them all, and small ones cost a tenth of the
  // bandwidth in address translation.
  void prefetch() const;

  // Reads all data once on all threads, which also brings them into memory and into this process's page table.
  Status verify(tensor::Stream& stream, const Progress& progress) const;

  // Empty when there is none of the name.
  PackedBlob find(const std::string& name) const;

 private:
  PackedFile(MappedFile mapping, PackedHead head);

  MappedFile mapping_;
  PackedHead head_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace spillway::weights
