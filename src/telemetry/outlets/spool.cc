#include "telemetry/outlets/spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/crc.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <vector>

#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

metrics::Gauge spool_bytes("spillway_telemetry_spool_bytes", "Size of a spool on disk, of points or spans.", {"spool"});
metrics::Gauge dropped_bytes("spillway_telemetry_spool_dropped_bytes", "Unsent bytes that a spool's bound dropped.",
                             {"spool"});

constexpr size_t kHeadBytes = 8;
constexpr uint32_t kRecordBytesMax = 64 << 20;
constexpr std::string_view kExtension = ".spool";

class File {
 public:
  File(const std::string& path, int flags) : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_;
};

Error failed(const std::string& path, const char* what) {
  const bool full = errno == ENOSPC || errno == EFBIG || errno == EDQUOT;
  return {full ? ErrorCode::kResourceExhausted : ErrorCode::kUnavailable,
          fmt::format("{}: {}: {}", path, what, std::strerror(errno))};
}

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(size_t(written));
  }
  return true;
}

void put_32(char* out, uint32_t value) {
  for (int byte = 0; byte < 4; ++byte) out[byte] = char(value >> (8 * byte));
}

uint32_t get_32(const char* in) {
  uint32_t value = 0;
  for (int byte = 0; byte < 4; ++byte) value |= uint32_t(uint8_t(in[byte])) << (8 * byte);
  return value;
}

uint32_t checksum(const char* size, std::string_view payload) {
  boost::crc_32_type crc;
  crc.process_bytes(size, 4);
  crc.process_bytes(payload.data(), payload.size());
  return crc.checksum();
}

// The record at the offset; nothing when there is no whole and sound one.
std::optional<std::string> read_record(int file, uint64_t offset, uint64_t end) {
  char head[kHeadBytes];
  if (offset + kHeadBytes > end || ::pread(file, head, kHeadBytes, off_t(offset)) != ssize_t(kHeadBytes)) return {};
  const uint32_t size = get_32(head);
  if (size > kRecordBytesMax || offset + kHeadBytes + size > end) return {};
  std::string payload(size, '\0');
  if (::pread(file, payload.data(), size, off_t(offset + kHeadBytes)) != ssize_t(size)) return {};
  if (get_32(head + 4) != checksum(head, payload)) return {};
  return payload;
}

// How much of a segment is sound, from its beginning.
uint64_t sound_bytes(const std::string& path, uint64_t size) {
  const File file(path, O_RDONLY);
  uint64_t offset = 0;
  while (file) {
    const auto payload = read_record(file.get(), offset, size);
    if (!payload) break;
    offset += kHeadBytes + payload->size();
  }
  return offset;
}

// Replaces a small file as a whole.
Status replace_file(const std::string& path, std::string_view text) {
  const std::string part = path + ".part";
  {
    const File file(part, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file || !write_all(file.get(), text)) return failed(part, "cannot be written");
  }
  if (::rename(part.c_str(), path.c_str()) != 0) return failed(path, "cannot be replaced");
  return {};
}

}  // namespace

Result<std::unique_ptr<Spool>> Spool::open(SpoolOptions options, std::vector<std::string> readers) {
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error) return Error{ErrorCode::kUnavailable, options.folder + ": cannot be made: " + error.message()};
  std::unique_ptr<Spool> spool(new Spool(std::move(options)));
  const std::string lock = spool->options_.folder + "/lock";
  spool->lock_ = File(lock, O_RDWR | O_CREAT).release();
  if (spool->lock_ < 0) return failed(lock, "cannot be opened");
  if (::flock(spool->lock_, LOCK_EX | LOCK_NB) != 0) {
    return Error{ErrorCode::kUnavailable,
                 spool->options_.folder + ": expected a spool of this process, found it in use"};
  }
  SW_TRY(spool->find_segments());
  SW_TRY(spool->load_cursors(readers));
  spool->drop_read();
  spool->keep_bound();
  return spool;
}

Spool::~Spool() {
  if (file_ >= 0) {
    if (options_.sync != SpoolOptions::Sync::kNever) ::fdatasync(file_);
    ::close(file_);
  }
  if (lock_ >= 0) ::close(lock_);
}

std::string Spool::path(uint64_t segment) const {
  return fmt::format("{}/{:016x}{}", options_.folder, segment, kExtension);
}

Spool::Segment* Spool::find(uint64_t number) {
  const auto at = std::ranges::find(segments_, number, &Segment::number);
  return at == segments_.end() ? nullptr : &*at;
}

Status Spool::find_segments() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(options_.folder, error)) {
    const std::string name = entry.path().filename().string();
    uint64_t number = 0;
    const auto read = std::from_chars(name.data(), name.data() + name.size(), number, 16);
    if (read.ec != std::errc() || std::string_view(read.ptr) != kExtension) continue;
    segments_.push_back({number, entry.file_size(error)});
  }
  if (error) return Error{ErrorCode::kUnavailable, options_.folder + ": cannot be read: " + error.message()};
  std::ranges::sort(segments_, {}, &Segment::number);
  // A new process never writes to an old segment: what a crash left at its end stays what it was. Only the last can be
  // torn.
  if (segments_.empty()) return {};
  Segment& last = segments_.back();
  const uint64_t sound = sound_bytes(path(last.number), last.bytes);
  if (sound < last.bytes) {
    ++damaged_;
    if (::truncate(path(last.number).c_str(), off_t(sound)) != 0) return failed(path(last.number), "cannot be cut");
    last.bytes = sound;
  }
  return {};
}

Status Spool::load_cursors(const std::vector<std::string>& readers) {
  for (const std::string& reader : readers) {
    Place place;
    const std::string cursor = options_.folder + "/" + reader + ".cursor";
    const File file(cursor, O_RDONLY);
    if (file) {
      char text[64] = {};
      const ssize_t size = ::read(file.get(), text, sizeof text - 1);
      unsigned long long segment = 0, offset = 0;
      if (size <= 0 || std::sscanf(text, "%llx %llu", &segment, &offset) != 2) {
        return corrupt(cursor + ": expected \"SEGMENT OFFSET\", found \"" + text + "\"");
      }
      place = {segment, offset};
    }
    cursors_[reader] = place;
  }
  return {};
}

Status Spool::roll() {
  if (file_ >= 0) {
    if (options_.sync != SpoolOptions::Sync::kNever) ::fdatasync(file_);
    ::close(file_);
    file_ = -1;
  }
  uint64_t next = segments_.empty() ? 1 : segments_.back().number + 1;
  for (const auto& [name, place] : cursors_) next = std::max(next, place.segment + 1);  // never a number that was read
  File file(path(next), O_WRONLY | O_CREAT | O_EXCL | O_APPEND);
  if (!file) return failed(path(next), "cannot be made");
  file_ = file.release();
  segments_.push_back({next, 0});
  return {};
}

Status Spool::append(std::string_view payload) {
  if (payload.size() > kRecordBytesMax) {
    return invalid(
        fmt::format("spool: expected a record of at most {} bytes, found {}", kRecordBytesMax, payload.size()));
  }
  std::string record(kHeadBytes, '\0');
  put_32(record.data(), uint32_t(payload.size()));
  put_32(record.data() + 4, checksum(record.data(), payload));
  record += payload;
  std::lock_guard lock(mutex_);
  if (file_ < 0 || segments_.back().bytes + record.size() > options_.segment_bytes) SW_TRY(roll());
  Segment& segment = segments_.back();
  if (!write_all(file_, record)) {
    const Error error = failed(path(segment.number), "cannot be written");
    // The part that was written must not stand before the next record.
    if (::ftruncate(file_, off_t(segment.bytes)) != 0) {
      ::close(file_);
      file_ = -1;  // a new segment, as at a start
    }
    return error;
  }
  segment.bytes += record.size();
  keep_bound();
  return sync_if_due();
}

Status Spool::sync_if_due() {
  const TimePoint now = std::chrono::steady_clock::now();
  const bool due = options_.sync == SpoolOptions::Sync::kAlways ||
                   (options_.sync == SpoolOptions::Sync::kInterval && now - synced_ >= options_.sync_interval);
  if (!due) return {};
  synced_ = now;
  if (::fdatasync(file_) != 0) return failed(path(segments_.back().number), "cannot be forced to the disk");
  return {};
}

void Spool::drop_first() {
  ::unlink(path(segments_.front().number).c_str());
  segments_.pop_front();
}

// Segments that every reader has passed.
void Spool::drop_read() {
  Place first{~uint64_t{0}, 0};
  for (const auto& [name, place] : cursors_) first = std::min(first, place);
  const size_t kept = file_ >= 0 ? 1 : 0;
  while (segments_.size() > kept) {
    const Segment& segment = segments_.front();
    const bool passed =
        segment.number < first.segment || (segment.number == first.segment && first.offset >= segment.bytes);
    if (!passed) break;
    drop_first();
  }
}

void Spool::keep_bound() {
  uint64_t total = 0;
  for (const Segment& segment : segments_) total += segment.bytes;
  while (total > options_.bytes_max && segments_.size() > 1) {
    const Segment segment = segments_.front();
    uint64_t unread_from = segment.bytes;
    for (const auto& [name, place] : cursors_) {
      if (place.segment < segment.number) unread_from = 0;
      if (place.segment == segment.number) unread_from = std::min(unread_from, place.offset);
    }
    dropped_bytes_ += segment.bytes - unread_from;
    total -= segment.bytes;
    drop_first();
  }
}

Result<std::optional<Spool::Record>> Spool::peek(const std::string& reader) {
  std::lock_guard lock(mutex_);
  return read_from(cursors_.at(reader));
}

Result<std::vector<Spool::Record>> Spool::peek_some(const std::string& reader, uint64_t bytes_max) {
  std::lock_guard lock(mutex_);
  std::vector<Record> records;
  uint64_t bytes = 0;
  for (Place place = cursors_.at(reader); bytes < bytes_max;) {
    SW_ASSIGN(std::optional<Record> record, read_from(place));
    if (!record) break;
    place = record->next;
    bytes += record->payload.size();
    records.push_back(std::move(*record));
  }
  return records;
}

Status Spool::replay(const std::function<void(std::string_view)>& take) {
  std::lock_guard lock(mutex_);
  for (Place place;;) {
    SW_ASSIGN(const std::optional<Record> record, read_from(place));
    if (!record) return {};
    take(record->payload);
    place = record->next;
  }
}

Result<std::optional<Spool::Record>> Spool::read_from(Place& place) {
  for (;;) {
    const auto at = std::ranges::lower_bound(segments_, place.segment, {}, &Segment::number);
    if (at == segments_.end()) return std::optional<Record>();
    if (at->number != place.segment) place = {at->number, 0};
    const bool is_last = at + 1 == segments_.end();
    if (place.offset >= at->bytes) {
      if (is_last) return std::optional<Record>();
      place = {(at + 1)->number, 0};
      continue;
    }
    const Segment segment = *at;
    const File file(path(segment.number), O_RDONLY);
    if (!file) return failed(path(segment.number), "cannot be opened");
    if (auto payload = read_record(file.get(), place.offset, segment.bytes)) {
      const Place next{segment.number, place.offset + kHeadBytes + payload->size()};
      return std::optional(Record{std::move(*payload), next});
    }
    ++damaged_;  // where the next record would begin is unknown
    place.offset = segment.bytes;
  }
}

Status Spool::advance(const std::string& reader, Place next) {
  std::lock_guard lock(mutex_);
  cursors_.at(reader) = next;
  drop_read();
  return replace_file(options_.folder + "/" + reader + ".cursor", fmt::format("{:x} {}\n", next.segment, next.offset));
}

uint64_t Spool::bytes() const {
  std::lock_guard lock(mutex_);
  uint64_t total = 0;
  for (const Segment& segment : segments_) total += segment.bytes;
  return total;
}

void publish(const Spool& spool, std::string_view what) {
  spool_bytes.with({what}).set(double(spool.bytes()));
  dropped_bytes.with({what}).set(double(spool.bytes_dropped()));
}

}  // namespace spillway::telemetry
