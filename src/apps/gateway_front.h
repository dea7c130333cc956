// The gateway in front of a server: what `serve` puts there when the configuration has upstreams.
#pragma once

#include <memory>

#include "base/result.h"
#include "config/config.h"
#include "gateway/gateway.h"
#include "server/server.h"

namespace spillway::apps {

class GatewayFront {
 public:
  // Null without upstreams in the configuration.
  static Result<std::shared_ptr<GatewayFront>> make(const config::Config& config);

  server::ServerOptions::Front front();
  // The server whose models are the upstreams of kind local. Before the first request is answered.
  void set_local(server::Server& server);
  std::vector<server::UpstreamView> upstreams() const;  // for the console; any thread
  std::vector<std::string> models() const { return gateway_->models(); }

 private:
  net::asio::awaitable<std::optional<server::FrontAnswer>> answer(net::HttpRequest& request, net::ResponseWriter& writer);

  std::unique_ptr<gateway::Gateway> gateway_;
};

}  // namespace spillway::apps
