#include "server/prefix_ledger.h"

#include <fmt/format.h>

#include <charconv>
#include <vector>

#include "base/random_bytes.h"

namespace spillway::server {
namespace {

constexpr int kBlockTokensMax = 1 << 20;
constexpr size_t kHeaderBlocksMax = 1024;

// Takes a number off the front; false when there is none.
template <class Number>
bool take(std::string_view& text, Number& number, int base) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc()) return false;
  text.remove_prefix(size_t(end - text.data()));
  return true;
}

}  // namespace

PrefixLedger::PrefixLedger() : epoch_(random_hex(8)) {}

void PrefixLedger::served(std::string_view header) {
  int tokens = 0;
  if (!take(header, tokens, 10) || tokens < 1 || tokens > kBlockTokensMax || !header.starts_with(':')) return;
  std::vector<uint64_t> blocks;
  while (!header.empty() && blocks.size() < kHeaderBlocksMax) {
    header.remove_prefix(1);
    uint64_t hash = 0;
    if (!take(header, hash, 16) || (!header.empty() && header.front() != ',')) return;
    blocks.push_back(hash);
  }
  std::lock_guard lock(mutex_);
  for (size_t i = blocks.size(); i-- > 0;) touch(blocks[i], tokens);  // the root last, so that it goes last
}

void PrefixLedger::touch(uint64_t hash, int tokens) {
  const auto found = places_.find(hash);
  if (found != places_.end()) {
    found->second->tokens = tokens;
    recent_.splice(recent_.begin(), recent_, found->second);
    return;
  }
  if (recent_.size() >= kBlocksMax) {
    places_.erase(recent_.back().hash);
    recent_.pop_back();
  }
  recent_.push_front({hash, tokens});
  places_[hash] = recent_.begin();
}

std::string PrefixLedger::json(int64_t tokens_held) const {
  std::lock_guard lock(mutex_);
  std::string out = fmt::format(R"({{"epoch":"{}","blocks":[)", epoch_);
  size_t told = 0;
  for (const Block& block : recent_) {
    tokens_held -= block.tokens;
    if (tokens_held < 0 || told == kBlocksToldMax) break;
    out += fmt::format(R"({}"{:x}")", told++ == 0 ? "" : ",", block.hash);
  }
  return out + "]}";
}

}  // namespace spillway::server
