#include "weights/packed_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tensor/tensor.h"
#include "weights/checksum.h"

namespace spillway::weights {
namespace {

Error failed(const std::string& path, const char* what) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return {full ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument,
          fmt::format("{}: cannot {}: {}", path, what, std::strerror(error))};
}

// A write past the file size limit answers EFBIG only while its signal is blocked; unblocked it ends the program.
class BlockSizeSignal {
 public:
  BlockSizeSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~BlockSizeSignal() {
    const timespec at_once{};
    while (sigtimedwait(&set_, nullptr, &at_once) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_, before_;
};

// The file under its passing name; removed unless it came to its own.
class Unfinished {
 public:
  static Result<Unfinished> create(const std::string& path) {
    std::string name = path + kUnfinished + "XXXXXX";
    const int fd = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd < 0) return failed(name, "create");
    return Unfinished(std::move(name), fd);
  }
  Unfinished(Unfinished&& other) noexcept : name_(std::move(other.name_)), fd_(std::exchange(other.fd_, -1)) {}
  ~Unfinished() {
    if (fd_ < 0) return;
    ::close(fd_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }

  // Takes the room on the disk first, so that a disk without it is found at once. Where a file system cannot do that,
  // writing finds it.
  Status reserve(uint64_t bytes) {
    if (::fallocate(fd_, 0, 0, off_t(bytes)) == 0 || errno == EOPNOTSUPP || errno == ENOSYS) return {};
    return failed(name_, "take room for the file");
  }

  Status write(uint64_t at, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), off_t(at));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return failed(name_, "write");
      at += uint64_t(written);
      bytes = bytes.subspan(size_t(written));
    }
    return {};
  }

  // Lets the disk begin, so that the sync at the end is short.
  void start_writeback(uint64_t at, uint64_t bytes) {
    ::sync_file_range(fd_, off64_t(at), off64_t(bytes), SYNC_FILE_RANGE_WRITE);
  }

  Status finish(const std::string& path) {
    if (::fsync(fd_) != 0) return failed(name_, "sync");
    if (::rename(name_.c_str(), path.c_str()) != 0) return failed(name_, "rename");
    name_.clear();
    const std::string folder = std::filesystem::path(path).parent_path().string();
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed(folder, "open");
    const int status = ::fsync(fd);
    ::close(fd);
    return status == 0 ? Status() : Status(failed(folder, "sync"));
  }

 private:
  Unfinished(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}
  std::string name_;
  int fd_;
};

PackedHead plan(const std::string& identity, std::span<const PackedSource> blobs) {
  std::vector<PackedEntry> entries;
  for (const PackedSource& blob : blobs) {
    entries.push_back({.name = blob.name, .tag = blob.tag, .begin = 0, .bytes = blob.bytes.size()});
  }
  return plan_packed_file(identity, std::move(entries));
}

// Copies what of the blobs lies in [begin, begin + out.size()) of the file; zeros between. next: the first blob that
// may.
void gather(const PackedHead& head, std::span<const PackedSource> blobs, uint64_t begin, std::span<std::byte> out,
            size_t& next) {
  const uint64_t end = begin + out.size();
  std::fill(out.begin(), out.end(), std::byte{0});
  for (size_t i = next; i < blobs.size() && head.entries[i].begin < end; ++i) {
    const PackedEntry& entry = head.entries[i];
    const uint64_t from = std::max(begin, entry.begin), to = std::min(end, entry.begin + entry.bytes);
    if (from < to) std::memcpy(out.data() + (from - begin), blobs[i].bytes.data() + (from - entry.begin), to - from);
    if (entry.begin + entry.bytes <= end) next = i + 1;
  }
}

Status write_data(Unfinished& file, PackedHead& head, std::span<const PackedSource> blobs, const StopWriting& stop) {
  const tensor::Tensor block(tensor::DType::kU8, {int64_t(kPackedBlock)});
  size_t next = 0;
  for (size_t b = 0; b < head.block_sums.size(); ++b) {
    if (stop && stop()) return Error{ErrorCode::kCancelled, "stopped"};
    const uint64_t begin = head.data_begin + b * kPackedBlock;
    const std::span out(block.raw<std::byte>(), std::min<uint64_t>(kPackedBlock, head.file_bytes - begin));
    gather(head, blobs, begin, out, next);
    head.block_sums[b] = checksum(out);
    SW_TRY(file.write(begin, out));
    file.start_writeback(begin, out.size());
  }
  return {};
}

}  // namespace

uint64_t packed_file_bytes(const std::string& identity, std::span<const PackedSource> blobs) {
  return plan(identity, blobs).file_bytes;
}

Status write_packed_file(const std::string& path, const std::string& identity, std::span<const PackedSource> blobs,
                         const StopWriting& stop) {
  const BlockSizeSignal blocked;
  PackedHead head = plan(identity, blobs);
  SW_ASSIGN(Unfinished file, Unfinished::create(path));
  SW_TRY(file.reserve(head.file_bytes));
  SW_TRY(write_data(file, head, blobs, stop));
  SW_TRY(file.write(0, encode_packed_head(head)));
  return file.finish(path);
}

}  // namespace spillway::weights
