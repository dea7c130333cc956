#include "gateway/policies/prompt_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "gateway/policies/random.h"

namespace spillway::gateway {
namespace {

// Tokens a character, as DeepSeek's API documentation gives them: about 0.3 for an English character, 0.6 for a Chinese
// one. Other two-byte scripts (Cyrillic, Arabic, Greek) are taken as 0.5.
constexpr double kTokensPerAscii = 0.3;
constexpr double kTokensPerTwoBytes = 0.5;
constexpr double kTokensPerThreeBytes = 0.6;
constexpr double kTokensPerFourBytes = 1.5;
constexpr double kTokensPerMessage = 4;  // role and separators of a chat template

uint64_t load(const char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

// Four lanes of multiply and rotate, so that the multiplications overlap.
uint64_t hash_bytes(uint64_t before, const char* bytes) {
  uint64_t lanes[4] = {before, before ^ 0x9e3779b97f4a7c15ull, before + 0xbf58476d1ce4e5b9ull, ~before};
  for (size_t at = 0; at < kPrefixBlockBytes; at += 32) {
    for (size_t lane = 0; lane < 4; ++lane) {
      lanes[lane] = std::rotl((lanes[lane] ^ load(bytes + at + 8 * lane)) * 0x9fb21c651e98df25ull, 29);
    }
  }
  return mix_bits(lanes[0] + mix_bits(lanes[1] + mix_bits(lanes[2] + mix_bits(lanes[3]))));
}

uint64_t sum(const std::array<uint64_t, 256>& counts, int first, int last) {
  uint64_t total = 0;
  for (int byte = first; byte <= last; ++byte) total += counts[static_cast<size_t>(byte)];
  return total;
}

}  // namespace

uint64_t prefix_salt(std::string_view model, std::string_view scope) { return hash_text(model, hash_text(scope)); }

void PromptScan::add(std::string_view role, std::string_view text) {
  ++roles_;
  hash("\x1e");
  hash(role);
  hash("\x1f");
  hash(text);
  count(text);
}

void PromptScan::count(std::string_view text) {
  constexpr uint64_t kHigh = 0x8080808080808080ull;
  bytes_ += text.size();
  const auto each = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte < 0x80) continue;
      ++high_bytes_;
      ++leads_[byte];
    }
  };
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    if ((load(text.data() + at) & kHigh) != 0) each(at, at + 8);
  }
  each(at, text.size());
}

void PromptScan::hash(std::string_view text) {
  while (!text.empty() && blocks_.size() < kPrefixBlocksMax) {
    if (block_size_ == 0 && text.size() >= kPrefixBlockBytes) {
      blocks_.push_back(hash_ = hash_bytes(hash_, text.data()));
      text.remove_prefix(kPrefixBlockBytes);
      continue;
    }
    const size_t part = std::min(text.size(), kPrefixBlockBytes - block_size_);
    std::memcpy(block_.data() + block_size_, text.data(), part);
    block_size_ += part;
    text.remove_prefix(part);
    if (block_size_ < kPrefixBlockBytes) continue;
    blocks_.push_back(hash_ = hash_bytes(hash_, block_.data()));
    block_size_ = 0;
  }
}

int64_t PromptScan::tokens() const {
  if (roles_ == 0) return 0;
  const auto ascii = static_cast<double>(bytes_ - high_bytes_);
  const auto two = static_cast<double>(sum(leads_, 0xc0, 0xdf)), three = static_cast<double>(sum(leads_, 0xe0, 0xef)),
             four = static_cast<double>(sum(leads_, 0xf0, 0xff));
  return static_cast<int64_t>(std::ceil(ascii * kTokensPerAscii + two * kTokensPerTwoBytes +
                                        three * kTokensPerThreeBytes + four * kTokensPerFourBytes +
                                        static_cast<double>(roles_) * kTokensPerMessage));
}

std::string PromptScan::language() const {
  if (bytes_ == 0) return "";
  // By first bytes in UTF-8: E3 is kana and CJK punctuation, E4..E9 are the common ideographs, EA..ED mostly Hangul.
  const std::pair<const char*, uint64_t> scripts[] = {
      {"zh", sum(leads_, 0xe4, 0xe9)}, {"ja", sum(leads_, 0xe3, 0xe3)}, {"ko", sum(leads_, 0xea, 0xed)},
      {"ru", sum(leads_, 0xd0, 0xd1)}, {"ar", sum(leads_, 0xd8, 0xdb)},
  };
  const uint64_t characters = bytes_ - high_bytes_ + sum(leads_, 0xc0, 0xff);
  // Japanese is written with ideographs too; Chinese punctuation shares E3 with kana but is rarer than one in four.
  if (scripts[1].second * 3 >= scripts[0].second && scripts[1].second * 10 >= characters) return "ja";
  const auto* most = std::max_element(std::begin(scripts), std::end(scripts),
                                      [](const auto& a, const auto& b) { return a.second < b.second; });
  // An ideograph or syllable says as much as several letters.
  if (most->second * 5 >= characters) return most->first;
  const uint64_t other = sum(leads_, 0xc6, 0xff);  // past Latin with its accents
  return other * 2 > characters ? "other" : "latin";
}

void PromptScan::finish(RequestFeatures& features) const {
  features.prompt_tokens = tokens();
  features.language = language();
  features.prefix_blocks = blocks_;
  features.tokens_per_block = bytes_ == 0 ? 0
                                          : static_cast<double>(features.prompt_tokens) * kPrefixBlockBytes /
                                                static_cast<double>(std::max(bytes_, kPrefixBlockBytes));
}

}  // namespace spillway::gateway
