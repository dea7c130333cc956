// Discovery: upstreams whose addresses are looked up: each address of a DNS name, or each ready endpoint of a
// Kubernetes service, is an upstream of its own, with its own breaker and load. Blocks; called by one thread, never an
// I/O thread. While a lookup fails the addresses known last go on. Not its job: when to look (the program's), health
// (the prober's).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "gateway/options.h"

namespace spillway::gateway {

// Where the API of the cluster is and who we are there.
struct KubernetesAccess {
  std::string api;         // "https://10.96.0.1:443"; empty: there is no cluster
  std::string token_file;  // read anew each time, for tokens are rotated
  std::string ca_file;

  // As a pod finds them: KUBERNETES_SERVICE_HOST and the mounted service account. KUBERNETES_API_URL goes before.
  static KubernetesAccess of_environment();
};

struct FoundEndpoint {
  std::string address;
  uint16_t port = 0;
  auto operator<=>(const FoundEndpoint&) const = default;
};

class Discovery {
 public:
  explicit Discovery(KubernetesAccess access) : access_(std::move(access)) {}

  static bool wanted(const std::vector<UpstreamOptions>& upstreams);
  // The list with each upstream that has discovery replaced by those found; one that never was found stays as it is
  // written. problems: what could not be looked up, for the log.
  std::vector<UpstreamOptions> expand(const std::vector<UpstreamOptions>& upstreams,
                                      std::vector<std::string>& problems);

 private:
  Result<std::vector<FoundEndpoint>> look_up(const UpstreamOptions& upstream) const;
  Result<std::vector<FoundEndpoint>> look_up_service(const UpstreamOptions& upstream) const;

  const KubernetesAccess access_;
  std::map<std::string, std::vector<FoundEndpoint>> known_;  // by the upstream's name
};

// The ready addresses of a v1 Endpoints object, with the named (or numbered) port, or its only one.
Result<std::vector<FoundEndpoint>> parse_endpoints(std::string_view body, std::string_view port);

}  // namespace spillway::gateway
