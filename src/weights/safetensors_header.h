// The header of a safetensors file: names, types, shapes and byte ranges. The bytes are untrusted; every range that
// comes out of parse_header lies inside the file, matches its shape and type, and overlaps no other. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace spillway::weights {

struct HeaderEntry {
  std::string name;
  tensor::DType dtype = tensor::DType::kF32;
  tensor::Shape shape;
  uint64_t begin = 0;  // from the start of the file
  uint64_t end = 0;
};

// Longest header accepted, as in the reference reader. The largest published one (DeepSeek-R1's shards) is under 1 MiB.
constexpr uint64_t kHeaderBytesMax = 100'000'000;

// Reads the header at the start of a file of file_bytes bytes; `head` must hold at least its first 8 + header bytes.
Result<std::vector<HeaderEntry>> parse_header(std::span<const std::byte> head, uint64_t file_bytes);

}  // namespace spillway::weights
