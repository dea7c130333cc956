#include "weights/packed_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "weights/checksum.h"

namespace spillway::weights {

PackedFile::PackedFile(MappedFile mapping, PackedHead head) : mapping_(std::move(mapping)), head_(std::move(head)) {
  for (size_t i = 0; i < head_.entries.size(); ++i) by_name_.emplace(head_.entries[i].name, i);
}

Result<PackedFile> PackedFile::open(const std::string& path) {
  SW_ASSIGN(MappedFile mapping, MappedFile::open(path));
  SW_ASSIGN(PackedHead head, parse_packed_head(mapping.bytes(), mapping.bytes().size()));
  return PackedFile(std::move(mapping), std::move(head));
}

void PackedFile::prefetch() const {
  mapping_.prefer_large_pages();
  mapping_.prefetch(mapping_.bytes().subspan(head_.data_begin));
}

Status PackedFile::verify(tensor::Stream& stream, const Progress& progress) const {
  const auto data = mapping_.bytes().subspan(head_.data_begin);
  std::mutex mutex;
  int64_t done = 0;
  std::atomic<int64_t> wrong{-1};
  stream.parallel_tasks(int64_t(head_.block_sums.size()), [&](int64_t block, int) {
    const uint64_t begin = uint64_t(block) * kPackedBlock;
    const auto bytes = data.subspan(begin, std::min<uint64_t>(kPackedBlock, data.size() - begin));
    if (checksum(bytes) != head_.block_sums[size_t(block)]) wrong = block;
    const std::lock_guard lock(mutex);
    done += int64_t(bytes.size());
    if (progress) progress(done, int64_t(data.size()));
  });
  if (wrong < 0) return {};
  return corrupt(fmt::format("the checksum of the {} bytes from {} does not fit", kPackedBlock,
                             head_.data_begin + uint64_t(wrong.load()) * kPackedBlock));
}

PackedBlob PackedFile::find(const std::string& name) const {
  const auto at = by_name_.find(name);
  if (at == by_name_.end()) return {};
  const PackedEntry& entry = head_.entries[at->second];
  return {mapping_.bytes().subspan(entry.begin, entry.bytes), entry.tag};
}

}  // namespace spillway::weights
