#include "store/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <charconv>
#include <cstdlib>
#include <set>

#include "store/s3_listing.h"

namespace spillway::store {
namespace {

constexpr int64_t kListingMax = 16 << 20;
constexpr int64_t kIndexMax = 64 << 20;
constexpr int kPagesMax = 1000;
constexpr size_t kFilesMax = 4096;

std::string from_environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return "";
}

Error of_status(const std::string& what, const Got& got) {
  const std::string text = s3_error_text(got.body);
  const std::string message = fmt::format("{}: status {}{}", what, got.status, text.empty() ? "" : " (" + text + ")");
  if (got.status == 404) return not_found(message);
  if (got.status == 401 || got.status == 403) return {ErrorCode::kUnauthenticated, message};
  if (got.status == 412) return corrupt(message + ": the file has changed in the store");
  if (got.status == 429 || got.status >= 500) return {ErrorCode::kUnavailable, message};
  return invalid(message);
}

// "bytes 0-99/1234"
struct ContentRange {
  int64_t first = -1, last = -1, total = -1;
};
ContentRange content_range(const Got& got) {
  ContentRange range;
  const auto found = got.headers.find("content-range");
  if (found == got.headers.end() || !found->second.starts_with("bytes ")) return range;
  const char *at = found->second.data() + 6, *end = found->second.data() + found->second.size();
  const auto number = [&](int64_t& into, char behind) {
    const auto [next, error] = std::from_chars(at, end, into);
    if (error != std::errc() || (behind != '\0' && (next == end || *next != behind))) return false;
    at = behind == '\0' ? next : next + 1;
    return true;
  };
  if (number(range.first, '-') && number(range.last, '/') && number(range.total, '\0')) return range;
  return {};
}

int64_t content_length(const Got& got) {
  const auto found = got.headers.find("content-length");
  int64_t length = -1;
  if (found != got.headers.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), length);
  return length;
}

std::string header(const Got& got, const char* name) {
  const auto found = got.headers.find(name);
  return found == got.headers.end() ? "" : found->second;
}

std::string plain_etag(std::string etag) {
  if (etag.starts_with("W/")) return "";  // says nothing of the bytes
  std::erase(etag, '"');
  return etag;
}

// Reads a range and holds the answer against the listing.
Status read_range(Connection& connection, Get get, const Object& object, int64_t first, int64_t size,
                  const std::function<bool(std::string_view)>& sink) {
  int64_t received = 0;
  if (object.ranges) {
    get.first = first;
    get.last = first + size - 1;
  }
  get.bytes_max = size;
  get.sink = [&](std::string_view piece) {
    received += static_cast<int64_t>(piece.size());
    return sink(piece);
  };
  SW_ASSIGN(const Got got, connection.get(get));
  const bool whole = got.status == 200 && first == 0 && size == object.size;
  if (got.status != 206 && !whole) {
    if (got.status != 200) return of_status(get.url, got);
    return corrupt(
        fmt::format("{}: expected bytes {} to {}, found the store to ignore ranges", get.url, first, first + size - 1));
  }
  if (got.status == 206) {
    const ContentRange range = content_range(got);
    if (range.first != first || range.last != first + size - 1 || range.total != object.size) {
      return corrupt(fmt::format("{}: expected bytes {}-{}/{}, found \"{:.80}\"", get.url, first, first + size - 1,
                                 object.size, header(got, "content-range")));
    }
  }
  if (got.cut && received >= size) return corrupt(fmt::format("{}: expected {} bytes, found more", get.url, size));
  if (got.cut) return Error{ErrorCode::kCancelled, get.url + ": stopped"};
  if (received != size)
    return Error{ErrorCode::kUnavailable, fmt::format("{}: expected {} bytes, found {}", get.url, size, received)};
  return {};
}

class S3Store final : public Store {
 public:
  S3Store(Location location, const StoreOptions& options) : location_(std::move(location)) {
    if (!options.endpoint.empty()) {
      base_ = options.endpoint + "/" + location_.bucket;
    } else if (location_.bucket.find('.') == std::string::npos) {
      base_ = fmt::format("https://{}.s3.{}.amazonaws.com", location_.bucket, options.credentials.region);
    } else {
      base_ = fmt::format("https://s3.{}.amazonaws.com/{}", options.credentials.region, location_.bucket);
    }
  }

  Result<std::vector<Object>> list(Connection& connection) override {
    const std::string prefix = location_.prefix.empty() ? "" : location_.prefix + "/";
    std::vector<Object> objects;
    std::string token;
    for (int page = 0; page < kPagesMax; ++page) {
      Get get;
      // The parameters in the order of their names, as the signature has them.
      get.url = base_ + "/?" + (token.empty() ? "" : "continuation-token=" + encode_query(token) + "&") +
                "list-type=2&prefix=" + encode_query(prefix);
      get.bytes_max = kListingMax;
      SW_ASSIGN(const Got got, connection.get(get));
      if (got.cut) return corrupt(fmt::format("{}: expected a listing of at most {} bytes", base_, kListingMax));
      if (got.status != 200) return of_status(base_, got);
      auto listing = parse_s3_listing(got.body);
      if (!listing.ok()) return Error(listing.error()).in(base_);
      for (const auto& found : listing->objects) {
        if (!found.key.starts_with(prefix))
          return corrupt(fmt::format("{}: expected keys under {}, found \"{:.80}\"", base_, prefix, found.key));
        const std::string name = found.key.substr(prefix.size());
        if (name.empty() || name.ends_with('/') || !is_model_file(name)) continue;
        if (!is_safe_name(name))
          return corrupt(fmt::format("{}: expected a plain key, found \"{:.80}\"", base_, found.key));
        if (objects.size() >= kFilesMax)
          return corrupt(fmt::format("{}: expected at most {} files of a model", base_, kFilesMax));
        objects.push_back({name, found.size, found.etag});
      }
      token = listing->next;
      if (token.empty()) break;
    }
    if (objects.empty())
      return not_found(
          fmt::format("s3://{}/{}: expected a model's files, found none", location_.bucket, location_.prefix));
    return objects;
  }

  Status read(Connection& connection, const Object& object, int64_t first, int64_t size,
              const std::function<bool(std::string_view)>& sink) override {
    Get get;
    get.url = base_ + "/" + encode_path(location_.prefix.empty() ? object.name : location_.prefix + "/" + object.name);
    if (!object.etag.empty()) get.if_match = "\"" + object.etag + "\"";
    return read_range(connection, std::move(get), object, first, size, sink);
  }

 private:
  static std::string encode_query(std::string_view text) {
    std::string encoded;
    for (const char c : encode_path(text)) encoded += c == '/' ? std::string("%2F") : std::string(1, c);
    return encoded;
  }

  Location location_;
  std::string base_;
};

// A folder of an HTTP server, which lists nothing: a model's files have known names.
class HttpStore final : public Store {
 public:
  explicit HttpStore(Location location) : base_(std::move(location.base)) {}

  Result<std::vector<Object>> list(Connection& connection) override {
    std::vector<Object> objects;
    SW_ASSIGN(const bool configured, probe(connection, "config.json", objects));
    if (!configured) return not_found(base_ + "/config.json: expected a model's config, found none");
    SW_ASSIGN(const bool sharded, probe(connection, "model.safetensors.index.json", objects));
    std::set<std::string> weights{"model.safetensors"};
    if (sharded) {
      SW_ASSIGN(weights, shards(connection, objects.back()));
    }
    for (const std::string& name : weights) {
      SW_ASSIGN(const bool found, probe(connection, name, objects));
      if (!found) return not_found(base_ + "/" + name + ": expected the weights, found none");
    }
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                             "generation_config.json", "chat_template.jinja", "vocab.txt", "preprocessor_config.json",
                             "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
                             "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"}) {
      SW_TRY(probe(connection, name, objects));
    }
    return objects;
  }

  Status read(Connection& connection, const Object& object, int64_t first, int64_t size,
              const std::function<bool(std::string_view)>& sink) override {
    Get get;
    get.url = base_ + "/" + encode_path(object.name);
    get.follow = true;
    return read_range(connection, std::move(get), object, first, size, sink);
  }

 private:
  // Whether the file is there; then it is added.
  Result<bool> probe(Connection& connection, const std::string& name, std::vector<Object>& objects) {
    Get get;
    get.url = base_ + "/" + encode_path(name);
    get.follow = true;
    get.first = get.last = 0;
    get.bytes_max = 1;
    get.sink = [](std::string_view) { return true; };
    SW_ASSIGN(const Got got, connection.get(get));
    if (got.status == 404 || got.status == 410) return false;
    Object object{name, 0, plain_etag(got.linked_etag.empty() ? header(got, "etag") : got.linked_etag),
                  got.status == 206};
    if (object.etag.empty()) object.etag = header(got, "last-modified");
    if (got.status == 416) {  // an empty file has no first byte
      object.ranges = false;
    } else if (got.status == 206) {
      object.size = content_range(got).total;
    } else if (got.status == 200) {
      object.size = content_length(got);
    } else {
      return of_status(get.url, got);
    }
    if (object.size < 0)
      return corrupt(get.url + ": expected the size of the file in Content-Range or Content-Length, found none");
    objects.push_back(std::move(object));
    return true;
  }

  Result<std::set<std::string>> shards(Connection& connection, const Object& index) {
    if (index.size > kIndexMax)
      return corrupt(fmt::format("{}: expected at most {} bytes, found {}", index.name, kIndexMax, index.size));
    std::string text;
    SW_TRY(read(connection, index, 0, index.size, [&](std::string_view piece) { return text += piece, true; }));
    boost::system::error_code error;
    const boost::json::value parsed = boost::json::parse(text, error);
    const boost::json::object* object = error ? nullptr : parsed.if_object();
    const boost::json::value* found = object ? object->if_contains("weight_map") : nullptr;
    const boost::json::object* map = found ? found->if_object() : nullptr;
    if (map == nullptr) return corrupt(index.name + ": expected an object with a weight_map, found none");
    std::set<std::string> names;
    for (const auto& [tensor, file] : *map) {
      const auto* name = file.if_string();
      if (name == nullptr || !is_safe_name({name->data(), name->size()}) || !name->ends_with(".safetensors")) {
        return corrupt(fmt::format("{}: expected the names of safetensors files, found another for {:.80}", index.name,
                                   std::string_view(tensor)));
      }
      names.emplace(name->data(), name->size());
      if (names.size() > kFilesMax)
        return corrupt(fmt::format("{}: expected at most {} shards", index.name, kFilesMax));
    }
    if (names.empty()) return corrupt(index.name + ": expected at least one shard, found none");
    return names;
  }

  std::string base_;
};

}  // namespace

Status StoreOptions::complete() {
  if (endpoint.empty()) endpoint = from_environment({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
  while (endpoint.ends_with('/')) endpoint.pop_back();
  if (!endpoint.empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://")) {
    return invalid(fmt::format("store.endpoint: expected a URL of http or https, found \"{}\"", endpoint));
  }
  if (credentials.region.empty()) credentials.region = from_environment({"AWS_REGION", "AWS_DEFAULT_REGION"});
  if (credentials.region.empty()) credentials.region = "us-east-1";
  if (credentials.access_key.empty()) {
    credentials.access_key = from_environment({"AWS_ACCESS_KEY_ID"});
    credentials.secret_key = from_environment({"AWS_SECRET_ACCESS_KEY"});
    credentials.session_token = from_environment({"AWS_SESSION_TOKEN"});
  }
  if (!cache_dir.empty()) return {};
  const std::string home = from_environment({"HOME"});
  cache_dir = from_environment({"XDG_CACHE_HOME"});
  if (cache_dir.empty() && !home.empty()) cache_dir = home + "/.cache";
  if (cache_dir.empty())
    return invalid("store.cache_dir: expected a folder, found none, and neither XDG_CACHE_HOME nor HOME");
  cache_dir += "/spillway/store";
  return {};
}

Result<std::unique_ptr<Store>> open_store(const Location& location, const StoreOptions& options) {
  if (location.kind == Location::Kind::kS3) return std::unique_ptr<Store>(std::make_unique<S3Store>(location, options));
  return std::unique_ptr<Store>(std::make_unique<HttpStore>(location));
}

bool is_model_file(std::string_view name) {
  for (const char* other : {"onnx/", "openvino/", "original/", "coreml/"}) {
    if (name.starts_with(other) || name.find(std::string("/") + other) != name.npos) return false;
  }
  constexpr std::string_view kEndings[] = {".safetensors", ".json", ".jinja", ".txt", ".model"};
  return std::ranges::any_of(kEndings, [&](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace spillway::store
