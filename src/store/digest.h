// Digest: a running MD5 or SHA-256 (OpenSSL's).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct evp_md_ctx_st;

namespace spillway::store {

class Digest {
 public:
  enum class Kind { kMd5, kSha256 };
  explicit Digest(Kind kind);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void update(std::string_view bytes);
  std::string raw();  // ends it
  std::string hex();  // ends it

 private:
  evp_md_ctx_st* context_;
};

// Whether the file is what its ETag says. An ETag of 32 hex digits is an MD5, one of 64 a SHA-256, one of an upload in
// N parts ("MD5-N") the MD5 of the parts' MD5s, for the sizes of part that uploaders use. kUnknown: the ETag is none of
// these.
enum class Verdict { kRight, kWrong, kUnknown };
Result<Verdict> check_etag(const std::string& path, int64_t size, const std::string& etag);

}  // namespace spillway::store
