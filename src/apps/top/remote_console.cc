#include "apps/top/remote_console.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "net/url.h"

namespace spillway::apps {

std::shared_ptr<RemoteConsole> RemoteConsole::add_flags(CLI::App& command) {
  auto remote = std::make_shared<RemoteConsole>();
  command.add_option("--url", remote->url, "The server")->capture_default_str();
  command.add_option("--admin-key", remote->key, "Its admin key (else $SPILLWAY_ADMIN_KEY)");
  command.add_option("--tls-ca", remote->tls_ca_file, "PEM file of the authority that signed its certificate");
  return remote;
}

Result<net::ClientResponse> RemoteConsole::call(const std::string& method, const std::string& path, Duration timeout,
                                                const std::function<bool(std::string_view)>& on_body) const {
  SW_ASSIGN(net::Url base, net::parse_url(url));
  net::ClientRequest request;
  request.method = method;
  request.url = net::join_path(base, path);
  request.response_timeout = request.read_timeout = timeout;
  std::string bearer = key;
  if (const char* named = std::getenv("SPILLWAY_ADMIN_KEY"); bearer.empty() && named) bearer = named;
  if (!bearer.empty()) request.headers.add("Authorization", "Bearer " + bearer);
  net::ClientOptions client;
  client.tls_ca_file = tls_ca_file;
  SW_ASSIGN(net::ClientResponse response, net::fetch_blocking(std::move(request), client, on_body));
  if (response.status == 200) return response;
  if (response.status == 401) return invalid(url + ": this server asks for its admin key (--admin-key)");
  return Error{ErrorCode::kUnavailable, fmt::format("{}{}: expected status 200, found {}: {}", url, path,
                                                    response.status, response.body.substr(0, 300))};
}

}  // namespace spillway::apps
