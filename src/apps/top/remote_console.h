// The console API of a server, as `top` and `trace` call it: a URL and an admin key.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http_client.h"

namespace CLI {
class App;
}

namespace spillway::apps {

struct RemoteConsole {
  std::string url = "http://127.0.0.1:8000";
  std::string key;  // empty: $SPILLWAY_ADMIN_KEY
  std::string tls_ca_file;

  // The flags --url, --admin-key, --tls-ca, written here when they are parsed.
  static std::shared_ptr<RemoteConsole> add_flags(CLI::App& command);

  // An answer other than 200 is an error that says what the server said. on_body as in net::fetch_blocking.
  Result<net::ClientResponse> call(const std::string& method, const std::string& path, Duration timeout,
                                   const std::function<bool(std::string_view)>& on_body = {}) const;
};

}  // namespace spillway::apps
