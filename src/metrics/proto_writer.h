// The wire form of Protocol Buffers, as far as metrics need it: appends fields to a string. The caller knows the
// message; a submessage is made as its own string, or with nested() in place.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::metrics {

class ProtoWriter {
 public:
  explicit ProtoWriter(std::string& out) : out_(out) {}

  void integer(int field, uint64_t value) {
    tag(field, 0);
    varint(value);
  }
  void zigzag(int field, int64_t value) { integer(field, zigzag_of(value)); }
  void number(int field, double value) {
    tag(field, 1);
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int byte = 0; byte < 8; ++byte) out_ += char(bits >> (8 * byte));
  }
  void text(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    out_ += value;
  }

  // fill(ProtoWriter&) writes the fields of the message in this field.
  void nested(int field, auto&& fill) {
    tag(field, 2);
    const size_t start = out_.size();
    fill(*this);
    insert_size(start);
  }

  // A message with its size before it, as in streams of them.
  void delimited(auto&& fill) {
    const size_t start = out_.size();
    fill(*this);
    insert_size(start);
  }

  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += char(value | 0x80);
    out_ += char(value);
  }
  static uint64_t zigzag_of(int64_t value) { return (uint64_t(value) << 1) ^ uint64_t(value >> 63); }

 private:
  void tag(int field, int wire) { varint(uint64_t(field) << 3 | uint64_t(wire)); }
  void insert_size(size_t start) {
    const uint64_t size = out_.size() - start;
    std::string head;
    ProtoWriter(head).varint(size);
    out_.insert(start, head);
  }

  std::string& out_;
};

}  // namespace spillway::metrics
