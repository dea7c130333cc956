#include "telemetry/outcomes/request_store.h"

#include <openssl/sha.h>

#include <algorithm>
#include <cstring>
#include <functional>

namespace spillway::telemetry {

RequestKey request_key(std::string_view id) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(id.data()), id.size(), digest);
  RequestKey key;
  std::memcpy(key.data(), digest, key.size());
  return key;
}

uint32_t text_mark(std::string_view text) {
  const size_t hash = std::hash<std::string_view>()(text);
  return std::max<uint32_t>(1, uint32_t(hash ^ (hash >> 32)));
}

size_t RequestStore::Hash::operator()(const RequestKey& key) const {
  size_t hash = 0;  // the key is a digest already
  std::memcpy(&hash, key.data(), sizeof hash);
  return hash;
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
  places_.erase(ring_[next_].key);
  ring_[next_] = request;
  places_[request.key] = uint32_t(next_);
  next_ = (next_ + 1) % requests_max_;
}

size_t RequestStore::size() const {
  std::lock_guard lock(mutex_);
  return ring_.size();
}

}  // namespace spillway::telemetry
