#include "base/random_bytes.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace spillway {
namespace {

struct Block {
  std::array<uint8_t, 1024> bytes;
  size_t used = sizeof bytes;

  void fill() {
    size_t had = 0;
    while (had < bytes.size()) {
      const ssize_t more = ::getrandom(bytes.data() + had, bytes.size() - had, 0);
      SW_CHECK(more > 0 || errno == EINTR, "the system has no random bytes");
      had += more > 0 ? size_t(more) : 0;
    }
    used = 0;
  }
};

}  // namespace

void random_bytes(void* to, size_t count) {
  thread_local Block block;
  auto* out = static_cast<uint8_t*>(to);
  while (count > 0) {
    if (block.used == block.bytes.size()) block.fill();
    const size_t part = std::min(count, block.bytes.size() - block.used);
    uint8_t* from = block.bytes.data() + block.used;
    std::memcpy(out, from, part);
    std::memset(from, 0, part);  // given once
    block.used += part;
    out += part;
    count -= part;
  }
}

void write_hex(const uint8_t* bytes, size_t count, char* text) {
  for (size_t i = 0; i < count; ++i) {
    text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
    text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
  }
}

std::string random_hex(size_t count) {
  std::string text(2 * count, '0');
  std::array<uint8_t, 32> bytes;
  for (size_t done = 0; done < count;) {
    const size_t part = std::min(count - done, bytes.size());
    random_bytes(bytes.data(), part);
    write_hex(bytes.data(), part, text.data() + 2 * done);
    done += part;
  }
  return text;
}

}  // namespace spillway
