#include "server/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fstream>

#include "api/common.h"

namespace spillway::server {

Result<ApiKeys> ApiKeys::load(const std::vector<std::string>& keys, const std::string& file) {
  ApiKeys loaded;
  for (const std::string& key : keys) {
    if (!key.empty()) loaded.digests_.push_back(digest(key));
  }
  if (file.empty()) return loaded;
  std::ifstream in(file);
  if (!in) return not_found(file + ": expected a readable file of API keys");
  for (std::string line; std::getline(in, line);) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos || line[begin] == '#') continue;
    const size_t end = line.find_last_not_of(" \t\r");
    loaded.digests_.push_back(digest(std::string_view(line).substr(begin, end - begin + 1)));
  }
  // An empty key file must not open the server to everyone.
  if (!loaded.required()) return invalid(file + ": expected at least one API key, found none");
  return loaded;
}

std::optional<size_t> ApiKeys::find(std::string_view key) const {
  const Digest wanted = digest(key);
  std::optional<size_t> found;
  for (size_t i = 0; i < digests_.size(); ++i) {
    if (CRYPTO_memcmp(digests_[i].data(), wanted.data(), wanted.size()) == 0) found = i;
  }
  return found;
}

ApiKeys::Digest ApiKeys::digest(std::string_view key) {
  Digest out;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data());
  return out;
}

std::optional<std::string_view> bearer_key(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return std::nullopt;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != kScheme[i]) return std::nullopt;
  }
  authorization.remove_prefix(kScheme.size());
  const size_t begin = authorization.find_first_not_of(' ');
  if (begin == std::string_view::npos) return std::nullopt;
  return authorization.substr(begin);
}

std::string masked_key(std::string_view key) {
  // Short ones would be shown whole.
  if (key.size() < 12) return "****";
  return "****" + api::utf8_lossy(key.substr(key.size() - 4));
}

}  // namespace spillway::server
