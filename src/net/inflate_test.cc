// Packed bodies: both formats, bounds, and bytes that are neither.
#include "net/inflate.h"

#include <gmock/gmock.h>
#include <zlib.h>

namespace spillway::net {
namespace {

using ::testing::HasSubstr;

std::string packed(std::string_view text, bool gzip) {
  z_stream z = {};
  EXPECT_EQ(deflateInit2(&z, 6, Z_DEFLATED, MAX_WBITS + (gzip ? 16 : 0), 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&z, text.size()) + 32, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = uInt(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = uInt(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

std::string text_of(size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) text += char('a' + i * i % 23);
  return text;
}

TEST(Inflate, GivesBackWhatWasPacked) {
  for (const size_t length : {0, 1, 4096, 4097, 100'000}) {
    for (const bool gzip : {false, true}) {
      const std::string text = text_of(length);
      const auto out = inflate(packed(text, gzip), length);
      ASSERT_TRUE(out.ok()) << out.error().message << " at " << length;
      EXPECT_EQ(*out, text);
    }
  }
}

TEST(Inflate, StopsAtTheBound) {
  const std::string zeros = packed(std::string(64 << 20, '\0'), true);
  ASSERT_LT(zeros.size(), 100'000u);
  const auto out = inflate(zeros, 1'000'000);
  ASSERT_FALSE(out.ok());
  EXPECT_EQ(out.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(out.error().message, HasSubstr("1000000"));
  EXPECT_FALSE(inflate(packed(text_of(5000), false), 4999).ok());
}

TEST(Inflate, TellsWhatIsBroken) {
  const std::string whole = packed(text_of(5000), true);
  EXPECT_THAT(inflate(std::string_view(whole).substr(0, whole.size() / 2), 9999).error().message,
              HasSubstr("end too soon"));
  EXPECT_THAT(inflate(whole + "more", 9999).error().message, HasSubstr("4 bytes behind"));
  EXPECT_THAT(inflate("{\"inputs\": []}", 9999).error().message, HasSubstr("expected gzip or zlib data"));
  EXPECT_THAT(inflate("", 9999).error().message, HasSubstr("end too soon"));
  std::string turned = whole;
  turned[turned.size() - 5] ^= 1;  // of the checksum
  EXPECT_FALSE(inflate(turned, 9999).ok());
}

}  // namespace
}  // namespace spillway::net
