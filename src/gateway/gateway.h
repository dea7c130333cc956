// Gateway: many upstreams behind one model name. Answers a request by the upstream that the policies prefer, goes on to
// the next when one fails before its first token, takes a broken stream up elsewhere where that can be done exactly,
// and says so in the stream where it cannot. Owned by the program; answer() runs on the connection's I/O thread,
// everything shared is locked for moments. Not its job: listening, HTTP's grammar (net), the models of this process
// (server).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gateway/access_log.h"
#include "gateway/call.h"
#include "gateway/lane.h"
#include "gateway/options.h"
#include "gateway/policies/prefix_index.h"
#include "gateway/prober.h"
#include "gateway/retry_budget.h"
#include "gateway/span_sink.h"
#include "gateway/tenants.h"
#include "gateway/tenants/coalescer.h"
#include "gateway/tenants/response_cache.h"
#include "gateway/upstream.h"
#include "gateway/waiting_line.h"
#include "net/http_server.h"

namespace spillway::gateway {

struct Answered {
  int status = 0;
  const char* outcome = "ok";
  // What is known of the request at its end.
  std::string model, upstream, tenant;
  std::string answered_by;  // the model, as the upstream calls it
  std::string finish_reason;
  std::optional<double> first_token_s;
  TokenUsage usage;
  double cost = 0;  // dollars, as the upstream's price says
};

// What gateways use and do not own: it outlives them all, from one configuration to the next. Any may be missing.
struct Surroundings {
  Tenants* tenants = nullptr;  // null: nobody is asked who he is
  ResponseCache* cache = nullptr;
  Coalescer<CachedResponse>* coalescer = nullptr;  // of embeddings
  SpanSink* spans = nullptr;
  net::Handler local;                // the models in this process, for upstreams of kind local
  std::function<bool()> local_well;  // whether they can be relied upon; missing: always
};

// Never changed after it was made: another configuration is another Gateway, and requests under way end with theirs.
class Gateway : public std::enable_shared_from_this<Gateway> {
 public:
  // before: the gateway that this one follows, whose upstreams go on (with what is known of them) where the
  // configuration says the same of them; may be null.
  static Result<std::shared_ptr<Gateway>> create(GatewayOptions options, std::shared_ptr<const Surroundings> around,
                                                 const Gateway* before = nullptr);

  // The path decides what kind of request it is; nothing when it is none of the gateway's.
  static std::optional<Endpoint> endpoint_of(std::string_view path);
  // Answers to the last byte.
  asio::awaitable<Answered> answer(net::HttpRequest request, Endpoint endpoint, net::ResponseWriter& writer);

  // The public model names, sorted.
  std::vector<std::string> models() const;
  // The upstreams as they are now, as JSON for the admin API.
  std::string state_json() const;

  // ---- for journeys ----
  const GatewayOptions& options() const { return options_; }
  const std::vector<std::shared_ptr<Upstream>>& upstreams() const { return upstreams_; }
  RetryBudget& retry_budget() { return retry_budget_; }
  PrefixIndex& prefixes() { return *prefixes_; }
  const Surroundings& around() const { return *around_; }
  AccessLog& access_log() { return *access_log_; }
  Decision decide(const RequestFeatures& features, TimePoint now);
  // As if the upstreams were so, with the reasons of refusals.
  Decision decide(const RequestFeatures& features, const std::vector<UpstreamState>& states, TimePoint now) const;
  WaitingLine& waiting() { return waiting_; }
  std::shared_ptr<Lane> lane(const asio::any_io_executor& executor);

 private:
  asio::awaitable<Answered> answer_response(net::HttpRequest request, net::ResponseWriter& writer);
  static asio::awaitable<Answered> refuse(Protocol protocol, const std::string& id, const api::ApiError& error,
                                          net::ResponseWriter& writer);
  void look_at_local(TimePoint now);
  Gateway(GatewayOptions options, PolicyChain policies, std::shared_ptr<AccessLog> access_log,
          std::shared_ptr<const Surroundings> around, const Gateway* before);

  const GatewayOptions options_;
  const PolicyChain policies_;
  const std::shared_ptr<AccessLog> access_log_;
  const std::shared_ptr<const Surroundings> around_;
  const uint64_t id_;
  std::vector<std::shared_ptr<Upstream>> upstreams_;
  RetryBudget retry_budget_;
  std::shared_ptr<PrefixIndex> prefixes_;
  WaitingLine waiting_;
  std::atomic<TimePoint> look_at_local_at_{TimePoint()};
  std::unique_ptr<Prober> prober_;
};

}  // namespace spillway::gateway
