#include "text/tokenizer_vocab.h"

#include <array>
#include <bit>
#include <cstring>

#include "text/unicode.h"

namespace spillway::text {

namespace {
uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return uint64_t(product) ^ uint64_t(product >> 64);
}
constexpr uint64_t kSeed = 0x9E3779B97F4A7C15ull;
constexpr uint64_t kFold = 0xD6E8FEB86659FD93ull;
}  // namespace

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = kSeed ^ bytes.size();
  const char* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = mix(hash ^ word, kFold);
  }
  uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, p, left);
  return mix(hash ^ tail, kSeed);
}

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  arena_.reserve(bytes);
  spans_.reserve(tokens);
  grow(std::bit_ceil(tokens + tokens / 2 + 16));
}

size_t Vocabulary::slot_of(std::string_view token, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const auto tag = uint32_t(hash >> 32);
  for (size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.id < 0 || (slot.tag == tag && this->token(slot.id) == token)) return at;
  }
}

void Vocabulary::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id >= 0) slots_[slot_of(token(slot.id), hash_bytes(token(slot.id)))] = slot;
  }
}

bool Vocabulary::add(std::string_view token, int32_t id) {
  if ((count_ + 1) * 3 > slots_.size() * 2) grow(std::bit_ceil(count_ * 2 + 16));
  if (contains(id)) return false;
  const uint64_t hash = hash_bytes(token);
  const size_t at = slot_of(token, hash);
  if (slots_[at].id >= 0) return false;
  if (size_t(id) >= spans_.size()) spans_.resize(size_t(id) + 1);
  spans_[size_t(id)] = {uint32_t(arena_.size()), uint32_t(token.size())};
  arena_.append(token);
  slots_[at] = {uint32_t(hash >> 32), id};
  ++count_;
  return true;
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  return slots_[slot_of(token, hash_bytes(token))].id;
}

bool Vocabulary::contains(int32_t id) const {
  return id >= 0 && size_t(id) < spans_.size() && spans_[size_t(id)].length != kAbsent;
}

std::string_view Vocabulary::token(int32_t id) const {
  if (!contains(id)) return {};
  const Span span = spans_[size_t(id)];
  return std::string_view(arena_).substr(span.offset, span.length);
}

namespace {

// Byte by code point of the alphabet; -1 elsewhere. Printable Latin-1 stands for itself, the rest is 256, 257, ...
constexpr size_t kAlphabetEnd = 256 + 68;
constexpr std::array<int16_t, kAlphabetEnd> make_alphabet() {
  std::array<int16_t, kAlphabetEnd> bytes{};
  for (auto& byte : bytes) byte = -1;
  size_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    bytes[printable ? size_t(byte) : next++] = int16_t(byte);
  }
  return bytes;
}
constexpr auto kAlphabet = make_alphabet();

}  // namespace

bool bytes_of_alphabet(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const char32_t c = next_character(p);
    if (c >= kAlphabetEnd || kAlphabet[c] < 0) return false;
    bytes.push_back(char(kAlphabet[c]));
  }
  return true;
}

}  // namespace spillway::text
