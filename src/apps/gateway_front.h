// The gateway in front of a server: what `serve` puts there when the configuration has upstreams. Holds the gateway of
// the present configuration and swaps it when another is taken over; requests under way end with theirs. Holds what
// outlives configurations: tenants, the response cache, the admin API. Owned by the command; front() runs on I/O
// threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "base/result.h"
#include "config/config.h"
#include "gateway/discovery.h"
#include "gateway/gateway.h"
#include "gateway/tenants/admin_api.h"
#include "server/server.h"

namespace spillway::apps {

class GatewayFront {
 public:
  // Null without upstreams in the configuration. spans may be null and outlives the front.
  static Result<std::shared_ptr<GatewayFront>> make(const config::Config& config, gateway::SpanSink* spans = nullptr);
  ~GatewayFront();

  // Puts itself in front of the server to be started with the options.
  void stand_before(server::ServerOptions& options);
  // The server that was started: its models are the upstreams of kind local. reload is what POST /admin/v1/reload does.
  // Before the first request is answered.
  void begin(server::Server& server, std::function<Status()> reload);

  // Another configuration, in two steps, so that it is taken over only when all of it is good.
  Result<std::shared_ptr<gateway::Gateway>> prepare(const config::Config& config) const;
  void take_over(std::shared_ptr<gateway::Gateway> next, const config::Config& config);

  std::vector<server::UpstreamView> upstreams() const;  // for the console; any thread
  std::vector<std::string> models() const { return gateway()->models(); }

 private:
  GatewayFront();
  net::asio::awaitable<std::optional<server::FrontAnswer>> answer(net::HttpRequest& request,
                                                                  net::ResponseWriter& writer);
  net::asio::awaitable<server::FrontAnswer> administer(net::HttpRequest& request, net::ResponseWriter& writer);
  gateway::AdminResponse handle(const gateway::AdminRequest& request);
  bool is_admin(std::string_view authorization) const;
  std::shared_ptr<gateway::Gateway> gateway() const;
  Status open_tenants(const config::Config& config);
  void discover();

  std::unique_ptr<gateway::TenantLedger> tenants_;
  std::unique_ptr<gateway::ResponseCache> cache_;
  gateway::Coalescer<gateway::CachedResponse> coalescer_;
  std::shared_ptr<gateway::Surroundings> around_;
  std::unique_ptr<gateway::AdminApi> admin_;
  std::optional<gateway::KeyDigest> admin_digest_;
  server::Server* server_ = nullptr;
  std::function<Status()> reload_;
  std::atomic<bool> begun_{false};

  mutable std::mutex mutex_;
  std::shared_ptr<gateway::Gateway> gateway_;  // under mutex_
  gateway::GatewayOptions written_;            // of it, before discovery; under mutex_
  Duration discovery_interval_{};              // under mutex_
  std::condition_variable wake_;
  bool stopping_ = false;                 // under mutex_
  mutable std::mutex discovery_mutex_;    // before mutex_
  mutable gateway::Discovery discovery_;  // under discovery_mutex_
  std::thread discoverer_;
};

}  // namespace spillway::apps
