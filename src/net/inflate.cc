#include "net/inflate.h"

#include <zlib.h>

#include <algorithm>

namespace spillway::net {
namespace {

constexpr size_t kFirstBytes = 4096, kGrowth = 4;
constexpr int kEitherHeader = 32;  // added to the window's bits: gzip or zlib, as the bytes say

struct Stream {
  z_stream zlib = {};
  bool open = false;
  ~Stream() {
    if (open) inflateEnd(&zlib);
  }
};

}  // namespace

Result<std::string> inflate(std::string_view bytes, size_t bytes_max) {
  Stream stream;
  z_stream& z = stream.zlib;
  stream.open = inflateInit2(&z, MAX_WBITS + kEitherHeader) == Z_OK;
  if (!stream.open) return Error{ErrorCode::kResourceExhausted, "no memory to unpack with"};
  constexpr size_t kPieceMax = size_t{1} << 30;  // zlib counts in 32 bits
  if (bytes.size() > kPieceMax || bytes_max > kPieceMax)
    return Error{ErrorCode::kResourceExhausted, "expected at most 1 GiB"};
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  std::string out;
  int status = Z_OK;
  while (status == Z_OK) {
    const size_t before = out.size();
    // One byte over the bound tells what is exactly as long from what is longer.
    out.resize(std::min(std::max(kFirstBytes, before * kGrowth), bytes_max + 1));
    z.next_out = reinterpret_cast<Bytef*>(out.data()) + before;
    z.avail_out = static_cast<uInt>(out.size() - before);
    status = ::inflate(&z, Z_NO_FLUSH);
    out.resize(out.size() - z.avail_out);
    if (out.size() > bytes_max)
      return Error{ErrorCode::kResourceExhausted, "unpacked: expected at most " + std::to_string(bytes_max) + " bytes"};
    if (status == Z_BUF_ERROR || (status == Z_OK && z.avail_in == 0 && z.avail_out > 0))
      return invalid("expected a whole gzip or zlib stream, found " + std::to_string(bytes.size()) +
                     " bytes that end too soon");
  }
  if (status != Z_STREAM_END)
    return invalid("expected gzip or zlib data, found " + std::string(z.msg != nullptr ? z.msg : "something else"));
  if (z.avail_in > 0) return invalid("expected one stream, found " + std::to_string(z.avail_in) + " bytes behind it");
  return out;
}

}  // namespace spillway::net
