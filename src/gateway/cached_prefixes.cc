#include "gateway/cached_prefixes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "gateway/json_cursor.h"

namespace spillway::gateway {
namespace {

constexpr size_t kEpochBytesMax = 64;
constexpr size_t kBlocksMax = 4096;       // believed of one report
constexpr size_t kHeaderBlocksMax = 256;  // 128 KiB of prompt, 4 KiB of header

bool read_blocks(JsonCursor& cursor, std::vector<uint64_t>& blocks) {
  if (!cursor.enter_array()) return false;
  while (cursor.next_element()) {
    const auto text = cursor.string();
    if (!text) return false;
    uint64_t hash = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), hash, 16);
    if (error != std::errc() || end != text->data() + text->size()) return false;
    if (blocks.size() < kBlocksMax) blocks.push_back(hash);
  }
  return true;
}

}  // namespace

std::optional<CachedPrefixes> parse_cached_prefixes(std::string_view body) {
  JsonCursor cursor(body);
  if (!cursor.enter_object()) return std::nullopt;
  CachedPrefixes told;
  bool blocks = false;
  std::string_view key;
  while (cursor.next_member(key)) {
    if (key == "epoch") {
      const auto text = cursor.string();
      if (!text || text->size() > kEpochBytesMax) return std::nullopt;
      told.epoch = *text;
    } else if (key == "blocks") {
      if (!read_blocks(cursor, told.blocks)) return std::nullopt;
      blocks = true;
    } else {
      cursor.skip();
    }
  }
  if (!cursor.finished() || !blocks || told.epoch.empty()) return std::nullopt;
  return told;
}

std::string prefix_header(const std::vector<uint64_t>& blocks, double tokens_per_block) {
  if (blocks.empty()) return {};
  std::string out = fmt::format("{}", std::max(1L, std::lround(tokens_per_block)));
  const size_t told = std::min(blocks.size(), kHeaderBlocksMax);
  for (size_t i = 0; i < told; ++i) out += fmt::format("{}{:x}", i == 0 ? ':' : ',', blocks[i]);
  return out;
}

void PrefixReports::take(CachedPrefixes told, TimePoint now) {
  if (!last_.epoch.empty() && last_.epoch != told.epoch) {  // it restarted: its cache began empty
    index_.forget(upstream_);
    last_.blocks.clear();
  }
  std::vector<uint64_t> sorted = told.blocks, dropped;
  std::ranges::sort(sorted);
  std::ranges::set_difference(last_.blocks, sorted, std::back_inserter(dropped));
  index_.report(upstream_, told.blocks, dropped, now);
  last_.epoch = std::move(told.epoch);
  last_.blocks = std::move(sorted);
}

}  // namespace spillway::gateway
