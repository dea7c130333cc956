// MappedFile: one file mapped read-only. Owned by the checkpoint; read by any thread. The file must not shrink while it
// is mapped (a truncated file raises SIGBUS, as with any mapping).
#pragma once

#include <cstddef>
#include <cstdint>
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
  int64_t modified_ns() const { return modified_ns_; }  // since 1970, when it was opened

  // Asks for large pages in the page cache, where the file system has them: before anything is read.
  void prefer_large_pages() const;
  // Tells the system not to read ahead: single pages will be used.
  void expect_random() const;
  // Asks the system to read the range ahead; and to drop the pages that lie wholly inside it from this process.
  void prefetch(std::span<const std::byte> range) const;
  static void drop(std::span<const std::byte> range);

 private:
  MappedFile(std::span<const std::byte> bytes, int64_t modified_ns) : bytes_(bytes), modified_ns_(modified_ns) {}
  std::span<const std::byte> bytes_;
  int64_t modified_ns_ = 0;
};

}  // namespace spillway::weights
