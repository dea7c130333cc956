// The head of a packed file: planned, encoded, parsed.
#include <fmt/format.h>

#include <cstring>
#include <unordered_set>

#include "weights/checksum.h"
#include "weights/packed_file.h"

namespace spillway::weights {
namespace {

constexpr char kMagic[] = {'S', 'P', 'W', 'P', 'A', 'C', 'K', '1'};
constexpr size_t kChecksumAt = kPackedHeaderBytes - 8;
constexpr uint64_t kEntryBytes = 28;  // without the name

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t file_bytes, head_bytes, data_begin, identity_bytes, blobs, checksum;
};
static_assert(sizeof(Header) == kPackedHeaderBytes);

uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

uint64_t blocks_of(uint64_t data_bytes) { return (data_bytes + kPackedBlock - 1) / kPackedBlock; }

uint64_t head_bytes_of(const PackedHead& head) {
  uint64_t bytes = head.identity.size();
  for (const PackedEntry& entry : head.entries) bytes += kEntryBytes + entry.name.size();
  return bytes;
}

class Writer {
 public:
  explicit Writer(std::byte* to) : to_(to) {}
  void bytes(const void* from, size_t size) {
    std::memcpy(to_, from, size);
    to_ += size;
  }
  template <class T>
  void number(T value) {
    bytes(&value, sizeof(value));
  }

 private:
  std::byte* to_;
};

// Reads on from untrusted bytes; ok() turns false at the first read past the end, which then gives zeros.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> from) : from_(from) {}
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && from_.empty(); }
  uint64_t u64() { return number<uint64_t>(); }
  uint32_t u32() { return number<uint32_t>(); }
  std::string text(uint64_t size) {
    const auto bytes = take(size);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  template <class T>
  T number() {
    T value = 0;
    const auto bytes = take(sizeof(T));
    if (bytes.size() == sizeof(T)) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> take(uint64_t size) {
    if (size > from_.size()) ok_ = false;
    if (!ok_) return {};
    const auto taken = from_.first(size);
    from_ = from_.subspan(size);
    return taken;
  }
  std::span<const std::byte> from_;
  bool ok_ = true;
};

uint64_t head_checksum(std::span<const std::byte> header_and_head) {
  const uint64_t front = checksum(header_and_head.first(kChecksumAt));
  return checksum(header_and_head.subspan(kPackedHeaderBytes)) ^ front * 3;
}

Result<Header> parse_header(std::span<const std::byte> start, uint64_t file_bytes) {
  Header header{};
  if (start.size() < sizeof(header)) {
    return corrupt(fmt::format("expected a header of {} bytes, found {}", sizeof(header), start.size()));
  }
  std::memcpy(&header, start.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)
    return corrupt("expected packed weights, found another file");
  if (header.version != kPackedVersion) {
    return corrupt(fmt::format("expected format version {}, found {}", kPackedVersion, header.version));
  }
  if (header.file_bytes != file_bytes) {
    return corrupt(fmt::format("expected {} bytes, found {}", header.file_bytes, file_bytes));
  }
  if (header.data_begin % kPackedDataAlignment != 0 || header.data_begin > file_bytes ||
      header.data_begin > start.size() || header.data_begin < kPackedHeaderBytes ||
      header.head_bytes > header.data_begin - kPackedHeaderBytes || header.identity_bytes > header.head_bytes ||
      header.blobs > header.head_bytes / kEntryBytes) {
    return corrupt("the header contradicts itself");
  }
  if (header.checksum != head_checksum(start.first(kPackedHeaderBytes + header.head_bytes))) {
    return corrupt("the checksum of the head does not fit");
  }
  return header;
}

Status check_entries(const PackedHead& head) {
  uint64_t end = head.data_begin;
  std::unordered_set<std::string_view> names;
  for (const PackedEntry& entry : head.entries) {
    if (entry.begin < end || entry.begin % kPackedAlignment != 0 || entry.begin > head.file_bytes ||
        entry.bytes > head.file_bytes - entry.begin) {
      return corrupt(fmt::format("blob '{}': expected bytes within [{}, {}], found {} from {}", entry.name, end,
                                 head.file_bytes, entry.bytes, entry.begin));
    }
    if (entry.name.empty() || !names.insert(entry.name).second) {
      return corrupt(fmt::format("blob '{}': expected a name of its own", entry.name));
    }
    end = entry.begin + entry.bytes;
  }
  return {};
}

}  // namespace

PackedHead plan_packed_file(std::string identity, std::vector<PackedEntry> entries) {
  PackedHead head;
  head.identity = std::move(identity);
  head.entries = std::move(entries);
  uint64_t data = 0;
  for (PackedEntry& entry : head.entries) {
    entry.begin = round_up(data, kPackedAlignment);
    data = entry.begin + entry.bytes;
  }
  head.block_sums.resize(blocks_of(data));
  head.data_begin =
      round_up(kPackedHeaderBytes + head_bytes_of(head) + 8 * head.block_sums.size(), kPackedDataAlignment);
  for (PackedEntry& entry : head.entries) entry.begin += head.data_begin;
  head.file_bytes = head.data_begin + data;
  return head;
}

std::vector<std::byte> encode_packed_head(const PackedHead& head) {
  Header header{};
  header.version = kPackedVersion;
  header.file_bytes = head.file_bytes;
  header.head_bytes = head_bytes_of(head) + 8 * head.block_sums.size();
  header.data_begin = head.data_begin;
  header.identity_bytes = head.identity.size();
  header.blobs = head.entries.size();
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  std::vector<std::byte> bytes(head.data_begin);
  Writer writer(bytes.data() + kPackedHeaderBytes);
  writer.bytes(head.identity.data(), head.identity.size());
  for (const PackedEntry& entry : head.entries) {
    writer.number(entry.begin);
    writer.number(entry.bytes);
    writer.number(entry.tag);
    writer.number(uint32_t(entry.name.size()));
    writer.bytes(entry.name.data(), entry.name.size());
  }
  for (const uint64_t sum : head.block_sums) writer.number(sum);
  std::memcpy(bytes.data(), &header, sizeof(header));
  header.checksum = head_checksum(std::span(bytes).first(kPackedHeaderBytes + header.head_bytes));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

Result<PackedHead> parse_packed_head(std::span<const std::byte> start, uint64_t file_bytes) {
  SW_ASSIGN(const Header header, parse_header(start, file_bytes));
  PackedHead head;
  head.file_bytes = header.file_bytes;
  head.data_begin = header.data_begin;
  Reader reader(start.subspan(kPackedHeaderBytes, header.head_bytes));
  head.identity = reader.text(header.identity_bytes);
  for (uint64_t i = 0; i < header.blobs && reader.ok(); ++i) {
    PackedEntry entry;
    entry.begin = reader.u64();
    entry.bytes = reader.u64();
    entry.tag = reader.u64();
    entry.name = reader.text(reader.u32());
    head.entries.push_back(std::move(entry));
  }
  for (uint64_t i = 0; i < blocks_of(head.file_bytes - head.data_begin) && reader.ok(); ++i) {
    head.block_sums.push_back(reader.u64());
  }
  if (!reader.at_end()) return corrupt("the head's tables do not fill it");
  SW_TRY(check_entries(head));
  return head;
}

}  // namespace spillway::weights
