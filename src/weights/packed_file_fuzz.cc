// Any bytes as the start of a packed file: an error or blobs inside the file, in order; never a crash. The checksum
// that guards the head is put right first, or the fuzzer would never come past it.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "weights/checksum.h"
#include "weights/packed_file.h"

namespace w = spillway::weights;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size < w::kPackedDataAlignment ? w::kPackedDataAlignment : size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  uint64_t file_bytes, head_bytes;
  std::memcpy(&file_bytes, bytes.data() + 16, 8);
  std::memcpy(&head_bytes, bytes.data() + 24, 8);
  if (head_bytes <= bytes.size() - w::kPackedHeaderBytes) {
    const auto all = std::span<const std::byte>(bytes);
    const uint64_t sum = w::checksum(all.subspan(w::kPackedHeaderBytes, head_bytes)) ^
                         w::checksum(all.first(w::kPackedHeaderBytes - 8)) * 3;
    std::memcpy(bytes.data() + w::kPackedHeaderBytes - 8, &sum, 8);
  }
  const auto head = w::parse_packed_head(bytes, file_bytes);
  if (!head.ok()) return 0;
  uint64_t end = head->data_begin;
  for (const w::PackedEntry& entry : head->entries) {
    if (entry.begin < end || entry.begin + entry.bytes > file_bytes || entry.name.empty()) std::abort();
    end = entry.begin + entry.bytes;
  }
  return 0;
}
