#include "gateway/discovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "gateway/translate/json_parts.h"
#include "net/http_client.h"

namespace spillway::gateway {
namespace {

using Kind = UpstreamOptions::Discovery;

constexpr Duration kPatience = std::chrono::seconds(5);
constexpr const char* kAccount = "/var/run/secrets/kubernetes.io/serviceaccount/";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Result<std::vector<FoundEndpoint>> look_up_name(const net::Url& url) {
  net::asio::io_context context;
  net::asio::ip::tcp::resolver resolver(context);
  boost::system::error_code failed;
  const auto found = resolver.resolve(url.host, std::to_string(url.port), failed);
  if (failed) return Error{ErrorCode::kUnavailable, url.host + ": " + failed.message()};
  std::vector<FoundEndpoint> endpoints;
  for (const auto& entry : found) endpoints.push_back({entry.endpoint().address().to_string(), url.port});
  return endpoints;
}

// The port of a subset that is meant; 0: it has none such.
uint16_t port_of(const json::object& subset, std::string_view wanted) {
  const json::array* ports = array_of(subset, "ports");
  if (ports == nullptr) return 0;
  for (const json::value& value : *ports) {
    const json::object* port = value.if_object();
    if (port == nullptr) continue;
    const int64_t number = number_of(*port, "port");
    const bool meant = wanted.empty() || text_of(*port, "name") == wanted || std::to_string(number) == wanted;
    if (meant && number > 0 && number < 65536) return uint16_t(number);
  }
  return 0;
}

}  // namespace

KubernetesAccess KubernetesAccess::of_environment() {
  KubernetesAccess access;
  const std::string host = environment("KUBERNETES_SERVICE_HOST"), port = environment("KUBERNETES_SERVICE_PORT");
  const bool v6 = host.find(':') != std::string::npos;
  access.api = environment("KUBERNETES_API_URL");
  if (access.api.empty() && !host.empty()) {
    access.api = fmt::format("https://{}:{}", v6 ? "[" + host + "]" : host, port.empty() ? "443" : port);
  }
  access.token_file = std::string(kAccount) + "token";
  access.ca_file = std::string(kAccount) + "ca.crt";
  return access;
}

Result<std::vector<FoundEndpoint>> parse_endpoints(std::string_view body, std::string_view port) {
  SW_ASSIGN(const json::object object, parse_json_object(body));
  std::vector<FoundEndpoint> found;
  const json::array* subsets = array_of(object, "subsets");
  if (subsets == nullptr) return found;  // a service without endpoints
  for (const json::value& value : *subsets) {
    const json::object* subset = value.if_object();
    const json::array* addresses = subset == nullptr ? nullptr : array_of(*subset, "addresses");
    if (addresses == nullptr) continue;
    const uint16_t number = port_of(*subset, port);
    if (number == 0) return invalid(fmt::format("expected a port \"{}\" of the service, found none such", port));
    for (const json::value& entry : *addresses) {
      const json::object* address = entry.if_object();
      if (address == nullptr || text_of(*address, "ip").empty()) return invalid("expected addresses with an ip");
      found.push_back({std::string(text_of(*address, "ip")), number});
    }
  }
  return found;
}

bool Discovery::wanted(const std::vector<UpstreamOptions>& upstreams) {
  return std::ranges::any_of(upstreams, [](const auto& upstream) { return upstream.discovery != Kind::kNone; });
}

Result<std::vector<FoundEndpoint>> Discovery::look_up(const UpstreamOptions& upstream) const {
  return upstream.discovery == Kind::kDns ? look_up_name(upstream.base) : look_up_service(upstream);
}

Result<std::vector<FoundEndpoint>> Discovery::look_up_service(const UpstreamOptions& upstream) const {
  if (access_.api.empty())
    return Error{ErrorCode::kUnavailable, "expected to run in a cluster (KUBERNETES_SERVICE_HOST is not set)"};
  const size_t slash = upstream.service.find('/'), colon = upstream.service.find(':', slash);
  const std::string space = upstream.service.substr(0, slash);
  const std::string name = upstream.service.substr(slash + 1, colon == std::string::npos ? colon : colon - slash - 1);
  const std::string port = colon == std::string::npos ? "" : upstream.service.substr(colon + 1);
  net::ClientRequest request;
  SW_ASSIGN(request.url, net::parse_url(access_.api));
  request.url = net::join_path(request.url, fmt::format("/api/v1/namespaces/{}/endpoints/{}", space, name));
  request.headers.add("Accept", "application/json");
  std::ifstream token(access_.token_file);
  std::string text;
  if (token && std::getline(token, text) && !text.empty()) request.headers.add("Authorization", "Bearer " + text);
  request.connect_timeout = request.response_timeout = request.read_timeout = kPatience;
  request.body_bytes_max = 8 << 20;
  net::ClientOptions client;
  if (std::ifstream(access_.ca_file)) client.tls_ca_file = access_.ca_file;
  SW_ASSIGN(const auto response, net::fetch_blocking(std::move(request), client));
  if (response.status != 200) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("the cluster's API answered {} for {}", response.status, upstream.service)};
  }
  return parse_endpoints(response.body, port);
}

std::vector<UpstreamOptions> Discovery::expand(const std::vector<UpstreamOptions>& upstreams,
                                               std::vector<std::string>& problems) {
  std::vector<UpstreamOptions> out;
  for (const UpstreamOptions& upstream : upstreams) {
    if (upstream.discovery == Kind::kNone) {
      out.push_back(upstream);
      continue;
    }
    std::vector<FoundEndpoint>& known = known_[upstream.info.name];
    auto found = look_up(upstream);
    if (found.ok()) {
      known = std::move(found).value();
      std::ranges::sort(known);
      known.erase(std::unique(known.begin(), known.end()), known.end());
    } else {
      problems.push_back(upstream.info.name + ": " + found.error().message);
    }
    if (known.empty()) out.push_back(upstream);
    for (const FoundEndpoint& endpoint : known) {
      UpstreamOptions one = upstream;
      one.address = endpoint.address;
      one.base.port = endpoint.port;
      std::string suffix = fmt::format("{}-{}", endpoint.address, endpoint.port);
      std::ranges::replace(suffix, ':', '.');  // of an IPv6 address: names are for labels
      one.info.name += "-" + suffix;
      one.written += endpoint.address + "\x04" + std::to_string(endpoint.port);
      out.push_back(std::move(one));
    }
  }
  return out;
}

}  // namespace spillway::gateway
