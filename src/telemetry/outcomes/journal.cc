#include "telemetry/outcomes/journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/log.h"

namespace spillway::telemetry {
namespace {

constexpr uint32_t kMagic = 0x314a5753;  // "SWJ1"
constexpr size_t kPartMax = 4096;

void put_32(std::string& out, uint32_t value) {
  for (int byte = 0; byte < 4; ++byte) out += char(value >> (8 * byte));
}

void put_64(std::string& out, uint64_t value) {
  put_32(out, uint32_t(value));
  put_32(out, uint32_t(value >> 32));
}

// After a fault everything reads as zero and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

  std::string_view bytes(size_t size) {
    if (size > in_.size()) {
      ok_ = false;
      in_ = {};
      return {};
    }
    const std::string_view taken = in_.substr(0, size);
    in_.remove_prefix(size);
    return taken;
  }
  uint32_t u32() {
    uint32_t value = 0;
    const std::string_view taken = bytes(4);
    for (size_t i = 0; i < taken.size(); ++i) value |= uint32_t(uint8_t(taken[i])) << (8 * i);
    return value;
  }
  uint64_t u64() {
    const uint64_t low = u32();
    return low | uint64_t(u32()) << 32;
  }

 private:
  std::string_view in_;
  bool ok_ = true;
};

void put_request(std::string& out, const Remembered& request) {
  out.append(reinterpret_cast<const char*>(request.key.data()), request.key.size());
  put_64(out, request.caller);
  put_32(out, request.group);
  put_32(out, request.finished_s);
  put_32(out, std::bit_cast<uint32_t>(request.cost));
  put_32(out, request.id_is_ours ? 1 : 0);
  put_32(out, request.predicted);
  for (const uint32_t given : request.given) put_32(out, given);
}

Remembered take_request(Reader& reader) {
  Remembered request;
  const std::string_view key = reader.bytes(request.key.size());
  std::copy(key.begin(), key.end(), request.key.begin());
  request.caller = reader.u64();
  request.group = reader.u32();
  request.finished_s = reader.u32();
  request.cost = std::bit_cast<float>(reader.u32());
  request.id_is_ours = reader.u32() != 0;
  request.predicted = reader.u32();
  for (uint32_t& given : request.given) given = reader.u32();
  return request;
}

}  // namespace

std::string encode_page(const JournalPage& page) {
  std::string out;
  put_32(out, kMagic);
  put_32(out, uint32_t(page.groups.size()));
  for (const auto& group : page.groups) {
    for (const std::string& part : group) {
      put_32(out, uint32_t(part.size()));
      out += part;
    }
  }
  put_32(out, uint32_t(page.requests.size()));
  for (const Remembered& request : page.requests) put_request(out, request);
  return out;
}

Result<JournalPage> decode_page(std::string_view bytes) {
  Reader reader(bytes);
  if (const uint32_t magic = reader.u32(); magic != kMagic) {
    return corrupt(fmt::format("journal: expected a page of version {:08x}, found {:08x}", kMagic, magic));
  }
  JournalPage page;
  const uint32_t groups = reader.u32();
  for (uint32_t i = 0; i < groups && reader.ok(); ++i) {
    std::vector<std::string> group;
    for (size_t part = 0; part < kGroupParts; ++part) {
      const uint32_t size = reader.u32();
      if (size > kPartMax)
        return corrupt(fmt::format("journal: expected a name of at most {} bytes, found {}", kPartMax, size));
      group.emplace_back(reader.bytes(size));
    }
    page.groups.push_back(std::move(group));
  }
  const uint32_t requests = reader.u32();
  for (uint32_t i = 0; i < requests && reader.ok(); ++i) {
    page.requests.push_back(take_request(reader));
    if (page.requests.back().group >= page.groups.size()) {
      return corrupt(fmt::format("journal: expected one of {} groups, found number {}", page.groups.size(),
                                 page.requests.back().group));
    }
  }
  if (!reader.ok() || !reader.at_end()) {
    return corrupt(fmt::format("journal: expected {} requests to fill the page, found {}", requests,
                               reader.ok() ? "more" : "its end before"));
  }
  return page;
}

Result<std::unique_ptr<Journal>> Journal::open(const std::string& folder, uint64_t bytes_max) {
  constexpr uint64_t kSegments = 8, kSegmentMin = 64 << 10;
  SpoolOptions options;
  options.folder = folder;
  options.bytes_max = bytes_max;
  options.segment_bytes = std::max(kSegmentMin, bytes_max / kSegments);
  SW_ASSIGN(auto spool, Spool::open(std::move(options), {"kept"}));  // a reader that never moves on
  return std::unique_ptr<Journal>(new Journal(std::move(spool)));
}

Status Journal::append(const JournalPage& page) { return spool_->append(encode_page(page)); }

Status Journal::replay(const std::function<void(const JournalPage&)>& take) {
  return spool_->replay([&](std::string_view bytes) {
    const auto page = decode_page(bytes);
    if (page.ok()) {
      take(*page);
    } else {
      SW_WARN("{}", page.error().message);
    }
  });
}

}  // namespace spillway::telemetry
