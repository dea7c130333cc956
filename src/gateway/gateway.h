// Gateway: many upstreams behind one model name. Answers a request by the upstream that the policies prefer, goes on to
// the next when one fails before its first token, takes a broken stream up elsewhere where that can be done exactly,
// and says so in the stream where it cannot. Owned by the program; answer() runs on the connection's I/O thread,
// everything shared is locked for moments. Not its job: listening, HTTP's grammar (net), the models of this process
// (server).
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gateway/access_log.h"
#include "gateway/call.h"
#include "gateway/lane.h"
#include "gateway/options.h"
#include "gateway/policies/prefix_index.h"
#include "gateway/retry_budget.h"
#include "gateway/tenants.h"
#include "gateway/upstream.h"
#include "net/http_server.h"

namespace spillway::gateway {

struct Answered {
  int status = 0;
  const char* outcome = "ok";
  // What is known of the request at its end.
  std::string model, upstream, tenant;
  TokenUsage usage;
  double cost = 0;  // dollars, as the upstream's price says
};

class Gateway {
 public:
  // tenants may be null: then nobody is asked who he is. It outlives the gateway.
  static Result<std::unique_ptr<Gateway>> create(GatewayOptions options, Tenants* tenants = nullptr);
  ~Gateway();

  // The handler of the models in this process, for upstreams of kind local. Before the first request.
  void set_local(net::Handler local) { local_ = std::move(local); }

  // Answers to the last byte. The path decides what kind of request it is; false when it is none of the gateway's.
  static std::optional<Endpoint> endpoint_of(std::string_view path);
  asio::awaitable<Answered> answer(net::HttpRequest request, Endpoint endpoint, net::ResponseWriter& writer);

  // The public model names, sorted.
  std::vector<std::string> models() const;

  // ---- for journeys ----
  const GatewayOptions& options() const { return options_; }
  std::vector<std::unique_ptr<Upstream>>& upstreams() { return upstreams_; }
  RetryBudget& retry_budget() { return retry_budget_; }
  PrefixIndex& prefixes() { return prefixes_; }
  const net::Handler& local() const { return local_; }
  Tenants* tenants() { return tenants_; }
  AccessLog& access_log() { return *access_log_; }
  Decision decide(const RequestFeatures& features, TimePoint now);
  std::atomic<int>& queued() { return queued_; }
  std::shared_ptr<Lane> lane(const asio::any_io_executor& executor);

 private:
  Gateway(GatewayOptions options, PolicyChain policies, std::unique_ptr<AccessLog> access_log, Tenants* tenants);
  class Prober;

  const GatewayOptions options_;
  const PolicyChain policies_;
  const std::unique_ptr<AccessLog> access_log_;
  Tenants* const tenants_;
  const uint64_t id_;
  std::vector<std::unique_ptr<Upstream>> upstreams_;
  RetryBudget retry_budget_;
  PrefixIndex prefixes_;
  net::Handler local_;
  std::atomic<int> queued_{0};
  std::unique_ptr<Prober> prober_;
};

}  // namespace spillway::gateway
