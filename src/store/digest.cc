#include "store/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <set>
#include <vector>

namespace spillway::store {
namespace {

constexpr size_t kBlock = 1 << 20;

bool is_hex(std::string_view text) { return text.find_first_not_of("0123456789abcdef") == text.npos; }

std::string to_hex(std::string_view raw) {
  std::string text;
  for (const char c : raw) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

// Reads [begin, end) of the file into the digest.
Status digest_range(std::ifstream& in, int64_t begin, int64_t end, Digest& digest) {
  std::vector<char> block(kBlock);
  in.clear();
  in.seekg(begin);
  for (int64_t at = begin; at < end;) {
    const auto wanted = static_cast<std::streamsize>(std::min<int64_t>(kBlock, end - at));
    in.read(block.data(), wanted);
    if (in.gcount() != wanted)
      return corrupt(fmt::format("expected {} bytes, found an end at {}", end, at + in.gcount()));
    digest.update({block.data(), static_cast<size_t>(wanted)});
    at += wanted;
  }
  return {};
}

// The sizes of part that uploads in so many parts may have had: what SDKs and tools use, and the least whole MiB.
std::set<int64_t> part_sizes(int64_t size, int64_t parts) {
  constexpr int64_t kMiB = 1 << 20;
  std::set<int64_t> sizes;
  const auto fits = [&](int64_t part) { return part > 0 && (size + part - 1) / part == parts; };
  for (const int64_t mib : {5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512, 1024}) {
    if (fits(mib * kMiB)) sizes.insert(mib * kMiB);
    if (fits(mib * 1000 * 1000)) sizes.insert(mib * 1000 * 1000);
  }
  const int64_t least = ((size + parts - 1) / parts + kMiB - 1) / kMiB * kMiB;
  if (fits(least)) sizes.insert(least);
  return sizes;
}

Result<Verdict> check_parts(std::ifstream& in, int64_t size, const std::string& etag, int64_t parts) {
  const std::set<int64_t> candidates = part_sizes(size, parts);
  for (const int64_t part : candidates) {
    Digest all(Digest::Kind::kMd5);
    for (int64_t begin = 0; begin < size; begin += part) {
      Digest one(Digest::Kind::kMd5);
      SW_TRY(digest_range(in, begin, std::min(size, begin + part), one));
      all.update(one.raw());
    }
    if (all.hex() == etag) return Verdict::kRight;
  }
  return Verdict::kUnknown;  // perhaps of a size of part that is not known here
}

}  // namespace

Digest::Digest(Kind kind) : context_(EVP_MD_CTX_new()) {
  SW_CHECK(context_ != nullptr, "a digest");
  EVP_DigestInit_ex(context_, kind == Kind::kMd5 ? EVP_md5() : EVP_sha256(), nullptr);
}

Digest::~Digest() { EVP_MD_CTX_free(context_); }

void Digest::update(std::string_view bytes) { EVP_DigestUpdate(context_, bytes.data(), bytes.size()); }

std::string Digest::raw() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  EVP_DigestFinal_ex(context_, bytes.data(), &size);
  return {reinterpret_cast<const char*>(bytes.data()), size};
}

std::string Digest::hex() { return to_hex(raw()); }

Result<Verdict> check_etag(const std::string& path, int64_t size, const std::string& etag) {
  const size_t dash = etag.find('-');
  const std::string_view sum = std::string_view(etag).substr(0, dash);
  if ((sum.size() != 32 && sum.size() != 64) || !is_hex(sum)) return Verdict::kUnknown;
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected a file, found none");
  if (dash != etag.npos) {
    int64_t parts = 0;
    const auto [end, error] = std::from_chars(etag.data() + dash + 1, etag.data() + etag.size(), parts);
    if (error != std::errc() || end != etag.data() + etag.size() || parts < 1 || parts > 10000 || sum.size() != 32)
      return Verdict::kUnknown;
    return check_parts(in, size, std::string(sum), parts);
  }
  Digest digest(sum.size() == 32 ? Digest::Kind::kMd5 : Digest::Kind::kSha256);
  SW_TRY(digest_range(in, 0, size, digest));
  return digest.hex() == sum ? Verdict::kRight : Verdict::kWrong;
}

}  // namespace spillway::store
