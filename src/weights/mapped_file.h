// MappedFile: one file mapped read-only. Owned by the checkpoint; read by any thread. The file must not shrink while it
// is mapped (a truncated file raises SIGBUS, as with any mapping).
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace spillway::weights {

class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }

  // Asks the system to read the range ahead; and to drop the pages that lie wholly inside it from this process.
  void prefetch(std::span<const std::byte> range) const;
  static void drop(std::span<const std::byte> range);

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace spillway::weights
