// ApiKeys: who may call. Keys are kept and compared as SHA-256 digests, each comparison in constant time and over all
// keys, so that timing tells nothing about them. Owned by the server; immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::server {

class ApiKeys {
 public:
  ApiKeys() = default;  // asks nobody for a key

  // keys: as given; file: one key a line, blank lines and lines that begin with '#' are skipped; empty: none.
  static Result<ApiKeys> load(const std::vector<std::string>& keys, const std::string& file);

  bool required() const { return !digests_.empty(); }

  // Index of the key, nothing when it is none of them.
  std::optional<size_t> find(std::string_view key) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest digest(std::string_view key);
  std::vector<Digest> digests_;
};

// "Bearer KEY" gives KEY; anything else nothing.
std::optional<std::string_view> bearer_key(std::string_view authorization);

// A key as an error may show it: its last four characters at most.
std::string masked_key(std::string_view key);

}  // namespace spillway::server
