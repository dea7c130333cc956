// Store: a place outside of this machine that holds a model's files: what there is, and ranges of it. A store is not
// trusted: its names are checked, and every byte against what the listing said. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/connection.h"
#include "store/location.h"

namespace spillway::store {

struct StoreOptions {
  std::string endpoint;  // of s3; empty: Amazon's of the region
  Credentials credentials;
  std::string cache_dir;
  int connections = 8;
  int64_t part_bytes = int64_t{16} << 20;
  double timeout_s = 30;
  int attempts = 5;

  // What is empty comes from the environment: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION,
  // AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; the folder from XDG_CACHE_HOME and HOME.
  Status complete();
};

struct Object {
  std::string name;  // relative to the location; safe as a path
  int64_t size = 0;
  std::string etag;    // without quotes; empty: the store gives none
  bool ranges = true;  // the store gives parts of it
};

class Store {
 public:
  virtual ~Store() = default;

  // The files of models, in all folders: weights, configurations, tokenizers, templates.
  virtual Result<std::vector<Object>> list(Connection& connection) = 0;

  // [first, first + size) of the object; sink as in Get. An error says what the store did wrong; kUnavailable is worth
  // another try.
  virtual Status read(Connection& connection, const Object& object, int64_t first, int64_t size,
                      const std::function<bool(std::string_view)>& sink) = 0;
};

Result<std::unique_ptr<Store>> open_store(const Location& location, const StoreOptions& options);

// Whether a file of this name belongs to a model as this program reads them.
bool is_model_file(std::string_view name);

}  // namespace spillway::store
