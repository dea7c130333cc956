// RequestStore: the requests of the last while, so that feedback can find them: a bounded first-in, first-out memory
// with look-up by id. Keeps no text of requests, only what outcomes are counted by. Any thread; each call holds one
// lock briefly.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace spillway::telemetry {

using RequestKey = std::array<unsigned char, 16>;
RequestKey request_key(std::string_view id);   // the id itself where it is 32 hexadecimal digits, else its digest
RequestKey digest_key(std::string_view text);  // the first 16 bytes of its SHA-256

// Kinds of feedback that a request can get, each once.
enum class Measure { kConversion, kRelevance, kCorrect, kThumbs };
inline constexpr size_t kMeasures = 4;

struct Remembered {
  RequestKey key{};
  uint64_t caller = 0;
  uint32_t group = 0;       // of the outcomes it belongs to
  uint32_t finished_s = 0;  // since the epoch
  float cost = 0;
  bool id_is_ours = true;
  uint32_t predicted = 0;                   // stands for the label that was predicted; 0: none
  std::array<uint32_t, kMeasures> given{};  // stands for what feedback said; 0: nothing yet
};

uint32_t text_mark(std::string_view text);  // never 0

class RequestStore {
 public:
  explicit RequestStore(size_t requests_max);

  // An id that is there already: the newer request takes its place.
  void add(const Remembered& request);
  size_t size() const;

  // change(Remembered&) under the lock; false when there is no such request.
  bool visit(const RequestKey& key, auto&& change) {
    std::lock_guard lock(mutex_);
    const auto at = places_.find(key);
    if (at == places_.end()) return false;
    change(ring_[at->second]);
    return true;
  }

 private:
  struct Hash {
    size_t operator()(const RequestKey& key) const;
  };
  const size_t requests_max_;
  mutable std::mutex mutex_;
  std::vector<Remembered> ring_;
  size_t next_ = 0;
  std::unordered_map<RequestKey, uint32_t, Hash> places_;
};

}  // namespace spillway::telemetry
