// Bytes that arrived and are not used yet: read in at the back, taken from the front. Keeps no memory when it is empty
// and told to shrink, for thousands of connections are idle.
#pragma once

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <cstring>
#include <memory>
#include <string_view>

namespace spillway::net {

class ByteInbox {
 public:
  std::string_view bytes() const { return {data_.get() + begin_, end_ - begin_}; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }
  void consume(size_t count) { begin_ += count; }

  // Room for a read of up to count bytes; valid until the next call of room or shrink.
  boost::asio::mutable_buffer room(size_t count) {
    if (capacity_ - end_ < count)
      move_to(capacity_ - size() < count ? std::max(capacity_ * 2, size() + count) : capacity_);
    return {data_.get() + end_, count};
  }
  void arrived(size_t count) { end_ += count; }

  // Gives memory back beyond what the bytes and a small read need.
  void shrink(size_t small_read) {
    if (capacity_ > 4 * small_read && size() <= small_read) move_to(2 * small_read);
  }

 private:
  void move_to(size_t capacity) {
    const size_t held = size();
    std::unique_ptr<char[]> fresh(capacity == capacity_ ? nullptr : new char[capacity]);
    char* to = fresh ? fresh.get() : data_.get();
    if (held > 0) std::memmove(to, data_.get() + begin_, held);
    if (fresh) data_ = std::move(fresh);
    capacity_ = capacity;
    begin_ = 0;
    end_ = held;
  }

  std::unique_ptr<char[]> data_;
  size_t capacity_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace spillway::net
