#include "apps/gateway_front.h"

#include <utility>

#include "gateway/configuration.h"
#include "gateway/json_cursor.h"

namespace spillway::apps {
namespace {

std::string model_list(const std::vector<std::string>& names) {
  std::string body = "{\"object\":\"list\",\"data\":[";
  for (size_t i = 0; i < names.size(); ++i) {
    body += i > 0 ? ",{\"id\":" : "{\"id\":";
    gateway::append_json_string(body, names[i]);
    body += ",\"object\":\"model\",\"owned_by\":\"spillway\"}";
  }
  return body + "]}";
}

}  // namespace

Result<std::shared_ptr<GatewayFront>> GatewayFront::make(const config::Config& config) {
  if (!gateway::has_gateway(config)) return std::shared_ptr<GatewayFront>();
  SW_ASSIGN(auto options, gateway::gateway_options(config));
  auto front = std::make_shared<GatewayFront>();
  SW_ASSIGN(front->gateway_, gateway::Gateway::create(std::move(options)));
  return front;
}

void GatewayFront::set_local(server::Server& server) {
  gateway_->set_local([&server](net::HttpRequest request, net::ResponseWriter& writer) {
    return server.answer_locally(std::move(request), writer);
  });
}

server::ServerOptions::Front GatewayFront::front() {
  return [this](net::HttpRequest& request, net::ResponseWriter& writer) { return answer(request, writer); };
}

net::asio::awaitable<std::optional<server::FrontAnswer>> GatewayFront::answer(net::HttpRequest& request,
                                                                              net::ResponseWriter& writer) {
  const bool lists = request.method == "GET" && (request.path == "/v1/models" || request.path == "/models");
  if (lists) {
    net::Headers fields = net::Headers::of("Content-Type", "application/json");
    std::string body = model_list(gateway_->models());
    co_await writer.send(200, std::move(fields), std::move(body));
    server::FrontAnswer answered{200, "ok", {}};
    co_return answered;
  }
  const auto endpoint = gateway::Gateway::endpoint_of(request.path);
  if (!endpoint || request.method != "POST") co_return std::nullopt;
  const gateway::Answered done = co_await gateway_->answer(std::move(request), *endpoint, writer);
  server::FrontAnswer answered{done.status, done.outcome, {}};
  answered.facts.model = answered.facts.answered_by = done.model;
  answered.facts.upstream = done.upstream;
  answered.facts.tenant = done.tenant;
  answered.facts.prompt_tokens = done.usage.prompt_tokens;
  answered.facts.cached_tokens = done.usage.cached_tokens;
  answered.facts.output_tokens = done.usage.output_tokens;
  answered.facts.cost = done.cost;
  co_return answered;
}

}  // namespace spillway::apps
