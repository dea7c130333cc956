// PieceCache: the pieces of one text repeat; it remembers where in the output the ids of each stand. TokenTable:
// strings by id in one arena. Both belong to one owner.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_model.h"
#include "text/tokenizer_vocab.h"

namespace spillway::text {

// One a text and thread. The pieces and the output outlive it; the output only grows.
class PieceCache {
 public:
  PieceCache(const TokenModel& model, size_t pieces) : model_(model) {
    if (pieces >= kPiecesMin) slots_.resize(std::bit_ceil(std::min(pieces / 2, kSlotsMax)));
  }

  void encode(std::string_view piece, std::vector<int32_t>& out) {
    if (slots_.empty() || piece.size() > kPieceBytesMax) return model_.encode(piece, out);
    Slot& slot = slots_[hash_bytes(piece) & (slots_.size() - 1)];
    if (slot.piece == piece) {
      const size_t begin = out.size();
      out.resize(begin + slot.count);
      std::copy_n(out.begin() + long(slot.begin), slot.count, out.begin() + long(begin));
      return;
    }
    const size_t begin = out.size();
    model_.encode(piece, out);
    slot = {piece, uint32_t(begin), uint32_t(out.size() - begin)};
  }

 private:
  static constexpr size_t kPiecesMin = 64;
  static constexpr size_t kSlotsMax = 8192;
  static constexpr size_t kPieceBytesMax = 64;

  struct Slot {
    std::string_view piece;
    uint32_t begin = 0;
    uint32_t count = 0;
  };

  const TokenModel& model_;
  std::vector<Slot> slots_;
};

class TokenTable {
 public:
  void push_back(std::string_view token) {
    arena_.append(token);
    ends_.push_back(uint32_t(arena_.size()));
  }
  std::string_view token(int32_t id) const {  // empty when there is none
    if (id < 0 || size_t(id) >= ends_.size()) return {};
    const size_t begin = id == 0 ? 0 : ends_[size_t(id) - 1];
    return std::string_view(arena_).substr(begin, ends_[size_t(id)] - begin);
  }

 private:
  std::string arena_;
  std::vector<uint32_t> ends_;
};

}  // namespace spillway::text
