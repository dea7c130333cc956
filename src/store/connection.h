// Connection: GET requests to one server after another over a kept connection (libcurl), signed where credentials are
// given. One thread at a time. What comes back is bounded by what was asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::store {

struct Credentials {
  std::string access_key, secret_key, session_token;  // no access_key: requests are not signed
  std::string region;
};

struct Get {
  std::string url;
  int64_t first = -1, last = -1;  // of a range of bytes; -1: all
  std::string if_match;           // an ETag, quotes and all
  int64_t bytes_max = 0;          // of a body; more is an error
  bool follow = false;            // redirects
  // Takes the body piece by piece; false ends the request with an error. Nothing: the body comes with the answer.
  std::function<bool(std::string_view)> sink;
};

struct Got {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case; of the last answer where redirects were followed
  std::string body;                            // of an error too, its first bytes
  std::string linked_etag;                     // X-Linked-Etag of any answer on the way (Hugging Face's SHA-256)
  bool cut = false;                            // the sink or bytes_max ended it
};

class Connection {
 public:
  // timeout_s: of silence.
  Connection(Credentials credentials, double timeout_s);
  ~Connection();
  Connection(Connection&&) noexcept;

  // An error where no answer came; any status is an answer.
  Result<Got> get(const Get& request);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway::store
