// ResponseCache: answers to requests that were asked before, word for word. Bounded in bytes, least recently used first
// out; entries expire. Off unless configured. What may be kept: answers to requests whose result is determined
// (temperature 0, one choice), or any if told so. A tenant never sees another's entries. Any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "gateway/tenants.h"

namespace spillway::gateway {

struct ResponseCacheOptions {
  size_t bytes_max = 0;  // 0: off
  Duration ttl = std::chrono::minutes(5);
  bool any_temperature = false;
};

struct CachedResponse {
  std::string content_type;
  std::string body;
  TokenUsage usage;  // of the answer when it was made; a hit costs nothing
};

class ResponseCache {
 public:
  explicit ResponseCache(ResponseCacheOptions options) : options_(options) {}

  bool enabled() const { return options_.bytes_max > 0; }

  // The name of an answer: a digest of scope (the tenant), path and the body as JSON with sorted members and without
  // those that do not change it (user, metadata). Nothing for a stream, or for what is no JSON object.
  static std::optional<std::string> digest_of(std::string_view scope, std::string_view path, std::string_view body);
  // Whether the answer to such a request may be kept.
  bool may_keep(std::string_view path, std::string_view body) const;
  // The name of an answer that may be kept.
  std::optional<std::string> key_of(std::string_view scope, std::string_view path, std::string_view body) const {
    return may_keep(path, body) ? digest_of(scope, path, body) : std::nullopt;
  }

  std::shared_ptr<const CachedResponse> find(const std::string& key, TimePoint now);
  void put(const std::string& key, CachedResponse response, TimePoint now);

  size_t bytes() const;
  size_t entries() const;

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const CachedResponse> response;
    TimePoint expires;
    size_t bytes;
  };
  void erase(std::list<Entry>::iterator entry);

  const ResponseCacheOptions options_;
  mutable std::mutex mutex_;
  std::list<Entry> recency_;                                                  // most recent first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> entries_;  // views into recency_
  size_t bytes_ = 0;
};

// The body as JSON with sorted members, without the named ones; nothing when it is not a JSON object, nests too deep
// or has a number past all doubles.
std::optional<std::string> canonical_json(std::string_view body, std::initializer_list<std::string_view> without);

}  // namespace spillway::gateway
