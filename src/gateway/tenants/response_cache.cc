#include "gateway/tenants/response_cache.h"

#include <openssl/sha.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <vector>

#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

namespace json = boost::json;

metrics::Counter lookups{
    "spillway_response_cache_lookups_total", "Requests looked up in the response cache.", {"result"}};

constexpr size_t kEntryOverhead = 256;

// Whether the text of a number is read as it: past all doubles, and far from 1, Boost's reader gives a neighbour.
bool comes_back(double number, const std::string& text) {
  if (!std::isfinite(number)) return false;
  boost::system::error_code failed;
  const json::value again = json::parse(text, failed);
  return !failed && again.is_double() && again.get_double() == number;
}

// False: a number cannot be told from others.
bool write_sorted(const json::value& value, std::string& out) {
  if (const json::object* object = value.if_object()) {
    std::vector<const json::key_value_pair*> members;
    for (const auto& member : *object) members.push_back(&member);
    std::sort(members.begin(), members.end(), [](const auto* a, const auto* b) { return a->key() < b->key(); });
    char separator = '{';
    for (const auto* member : members) {
      out += separator;
      out += json::serialize(json::string(member->key()));
      out += ':';
      if (!write_sorted(member->value(), out)) return false;
      separator = ',';
    }
    out += members.empty() ? "{}" : "}";
  } else if (const json::array* array = value.if_array()) {
    char separator = '[';
    for (const json::value& item : *array) {
      out += separator;
      if (!write_sorted(item, out)) return false;
      separator = ',';
    }
    out += array->empty() ? "[]" : "]";
  } else {
    const std::string text = json::serialize(value);
    if (value.is_double() && !comes_back(value.get_double(), text)) return false;
    out += text;
  }
  return true;
}

// Whether the same request must give the same answer.
bool determined(const json::object& request) {
  const json::value* temperature = request.if_contains("temperature");
  const bool zero = temperature != nullptr && temperature->is_number() && temperature->to_number<double>() == 0;
  const json::value* n = request.if_contains("n");
  const bool one = n == nullptr || (n->is_int64() && n->get_int64() == 1);
  return zero && one;
}

}  // namespace

std::optional<std::string> canonical_json(std::string_view body, std::initializer_list<std::string_view> without) {
  boost::system::error_code failed;
  json::value value = json::parse(body, failed);  // refuses nesting past 32
  if (failed || !value.is_object()) return std::nullopt;
  for (const std::string_view name : without) value.get_object().erase(name);
  std::string text;
  return write_sorted(value, text) ? std::optional(std::move(text)) : std::nullopt;
}

bool ResponseCache::may_keep(std::string_view path, std::string_view body) const {
  if (!enabled()) return false;
  // Embeddings and scores have no temperature and are determined by their input.
  if (path.ends_with("/embeddings") || path.ends_with("rerank") || options_.any_temperature) return true;
  boost::system::error_code failed;
  const json::value request = json::parse(body, failed);
  return !failed && request.is_object() && determined(request.get_object());
}

std::optional<std::string> ResponseCache::digest_of(std::string_view scope, std::string_view path,
                                                    std::string_view body) {
  boost::system::error_code failed;
  const json::value request = json::parse(body, failed);
  if (failed || !request.is_object()) return std::nullopt;
  const json::value* stream = request.get_object().if_contains("stream");
  if (stream != nullptr && stream->is_bool() && stream->get_bool()) return std::nullopt;
  const auto canonical = canonical_json(body, {"user", "metadata", "stream", "stream_options"});
  if (!canonical) return std::nullopt;
  std::string text(scope);
  text += '\0';
  text += path;
  text += '\0';
  text += *canonical;
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return std::string(reinterpret_cast<const char*>(digest), sizeof digest);
}

std::shared_ptr<const CachedResponse> ResponseCache::find(const std::string& key, TimePoint now) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found != entries_.end() && now >= found->second->expires) {
    erase(found->second);
    lookups.with({"expired"}).add();
    return nullptr;
  }
  lookups.with({found == entries_.end() ? "miss" : "hit"}).add();
  if (found == entries_.end()) return nullptr;
  recency_.splice(recency_.begin(), recency_, found->second);
  return found->second->response;
}

void ResponseCache::put(const std::string& key, CachedResponse response, TimePoint now) {
  const size_t bytes = kEntryOverhead + key.size() + response.content_type.size() + response.body.size();
  // One answer may not push out most of the others.
  if (bytes > options_.bytes_max / 4) return;
  std::lock_guard lock(mutex_);
  if (const auto found = entries_.find(key); found != entries_.end()) erase(found->second);
  while (bytes_ + bytes > options_.bytes_max) erase(std::prev(recency_.end()));
  recency_.push_front({key, std::make_shared<const CachedResponse>(std::move(response)), now + options_.ttl, bytes});
  entries_[recency_.front().key] = recency_.begin();
  bytes_ += bytes;
}

void ResponseCache::erase(std::list<Entry>::iterator entry) {
  bytes_ -= entry->bytes;
  entries_.erase(entry->key);
  recency_.erase(entry);
}

size_t ResponseCache::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

size_t ResponseCache::entries() const {
  std::lock_guard lock(mutex_);
  return recency_.size();
}

}  // namespace spillway::gateway
