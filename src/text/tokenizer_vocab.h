// Vocabulary: tokens by id and ids by token, in one arena and one flat hash table, because loading 150,000 of them is
// on the way to the first token. Filled by one thread, then immutable; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::text {

// Ids at or beyond this are refused, so that a small bad file cannot ask for much memory.
inline constexpr int32_t kTokenIdLimit = 1 << 22;

uint64_t hash_bytes(std::string_view bytes);

class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);

  // False when the id is taken or the token is there already. 0 <= id < kTokenIdLimit.
  bool add(std::string_view token, int32_t id);

  int32_t find(std::string_view token) const;  // -1 when absent
  bool contains(int32_t id) const;
  std::string_view token(int32_t id) const;                // empty when absent
  int32_t size() const { return int32_t(spans_.size()); }  // highest id + 1
  size_t count() const { return count_; }

 private:
  struct Span {
    uint32_t offset = 0;
    uint32_t length = kAbsent;
  };
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  static constexpr uint32_t kAbsent = UINT32_MAX;

  size_t slot_of(std::string_view token, uint64_t hash) const;
  void grow(size_t slots);

  std::string arena_;
  std::vector<Span> spans_;  // by id
  std::vector<Slot> slots_;  // a power of two
  size_t count_ = 0;
};

// GPT-2's alphabet: each byte as a printable character. The bytes that text stands for, false when a character is not
// in the alphabet.
bool bytes_of_alphabet(std::string_view text, std::string& bytes);

}  // namespace spillway::text
