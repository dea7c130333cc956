#include "telemetry/outcomes/request_store.h"

#include <openssl/sha.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "base/random_bytes.h"

namespace spillway::telemetry {
namespace {

// Of one spelling only: two ids that differ are two requests.
int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

RequestKey digest_key(std::string_view id) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(id.data()), id.size(), digest);
  RequestKey key;
  std::memcpy(key.data(), digest, key.size());
  return key;
}

// Ids that this server gives are 16 random bytes already.
RequestKey request_key(std::string_view id) {
  RequestKey key;
  if (id.size() != 2 * key.size()) return digest_key(id);
  for (size_t i = 0; i < key.size(); ++i) {
    const int high = digit(id[2 * i]), low = digit(id[2 * i + 1]);
    if (high < 0 || low < 0) return digest_key(id);
    key[i] = static_cast<unsigned char>(high << 4 | low);
  }
  return key;
}

uint32_t text_mark(std::string_view text) {
  const size_t hash = std::hash<std::string_view>()(text);
  return std::max<uint32_t>(1, uint32_t(hash ^ (hash >> 32)));
}

size_t RequestStore::Hash::operator()(const RequestKey& key) const {
  // Clients may choose keys: without the seed they could choose many of one bucket.
  static const std::array<uint64_t, 2> seed = [] {
    std::array<uint64_t, 2> drawn;
    random_bytes(drawn.data(), sizeof drawn);
    return drawn;
  }();
  uint64_t halves[2];
  std::memcpy(halves, key.data(), sizeof halves);
  const auto product = static_cast<unsigned __int128>(halves[0] ^ seed[0]) * (halves[1] ^ seed[1]);
  return size_t(product) ^ size_t(product >> 64);
}

RequestStore::RequestStore(size_t requests_max) : requests_max_(std::max<size_t>(1, requests_max)) {}

void RequestStore::add(const Remembered& request) {
  std::lock_guard lock(mutex_);
  if (const auto at = places_.find(request.key); at != places_.end()) {
    ring_[at->second] = request;
    return;
  }
  if (ring_.size() < requests_max_) {
    places_[request.key] = uint32_t(ring_.size());
    ring_.push_back(request);
    return;
  }
  auto place = places_.extract(ring_[next_].key);  // used again: no memory comes and goes
  ring_[next_] = request;
  place.key() = request.key;
  places_.insert(std::move(place));
  next_ = (next_ + 1) % requests_max_;
}

size_t RequestStore::size() const {
  std::lock_guard lock(mutex_);
  return ring_.size();
}

}  // namespace spillway::telemetry
