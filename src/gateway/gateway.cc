#include "gateway/gateway.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "gateway/journey.h"
#include "metrics/metrics.h"
#include "net/http_client.h"

namespace spillway::gateway {
namespace {

metrics::Counter probes_total{"spillway_gateway_probes_total", "Health probes by upstream and result.", {"upstream", "result"}};

std::atomic<uint64_t> next_id{1};

constexpr Duration kProbeTimeout = std::chrono::seconds(3);

std::string health_path(const UpstreamOptions& options) {
  if (options.health_path == "-") return "";
  if (!options.health_path.empty()) return options.health_path;
  return options.kind == UpstreamKind::kSpillway ? "/health/ready" : "";
}

}  // namespace

// Asks upstreams with a health path how they are, on a thread of its own.
class Gateway::Prober {
 public:
  explicit Prober(Gateway& gateway) : gateway_(gateway), thread_([this] { run(); }) {}
  ~Prober() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  void run() {
    std::map<size_t, TimePoint> due;
    for (;;) {
      TimePoint next = std::chrono::steady_clock::now() + std::chrono::seconds(1);
      for (size_t i = 0; i < gateway_.upstreams_.size(); ++i) {
        Upstream& upstream = *gateway_.upstreams_[i];
        const std::string path = health_path(upstream.options());
        if (path.empty()) continue;
        const TimePoint now = std::chrono::steady_clock::now();
        if (now >= due[i]) {
          probe(upstream, path);
          due[i] = now + upstream.options().health_interval;
        }
        next = std::min(next, due[i]);
      }
      std::unique_lock lock(mutex_);
      if (wake_.wait_until(lock, next, [this] { return stopped_; })) return;
    }
  }

  void probe(Upstream& upstream, const std::string& path) {
    net::ClientRequest request;
    request.url = net::join_path(upstream.options().base, path);
    request.connect_timeout = request.response_timeout = request.read_timeout = kProbeTimeout;
    request.body_bytes_max = 1 << 20;
    const net::ClientOptions client{upstream.options().tls_ca_file, upstream.options().tls_verify};
    auto response = net::fetch_blocking(std::move(request), client);
    const bool good = response.ok() && response->status == 200;
    upstream.probed(std::chrono::steady_clock::now(), good);
    probes_total.with({upstream.name(), good ? "ok" : "failed"}).add();
  }

  Gateway& gateway_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;
  std::thread thread_;
};

Gateway::Gateway(GatewayOptions options, PolicyChain policies, std::unique_ptr<AccessLog> access_log, Tenants* tenants)
    : options_(std::move(options)),
      policies_(std::move(policies)),
      access_log_(std::move(access_log)),
      tenants_(tenants),
      id_(next_id.fetch_add(1)),
      retry_budget_(options_.retry_budget) {
  for (const UpstreamOptions& upstream : options_.upstreams) upstreams_.push_back(std::make_unique<Upstream>(upstream));
  const bool probed = std::ranges::any_of(options_.upstreams, [](const auto& o) { return !health_path(o).empty(); });
  if (probed) prober_ = std::make_unique<Prober>(*this);
}

Gateway::~Gateway() { prober_.reset(); }

Result<std::unique_ptr<Gateway>> Gateway::create(GatewayOptions options, Tenants* tenants) {
  if (options.upstreams.empty()) return invalid("gateway.upstreams: expected at least one upstream, found none");
  if (options.upstreams.size() > kPrefixUpstreamsMax) return invalid("gateway.upstreams: expected at most 256");
  SW_ASSIGN(PolicyChain policies, PolicyChain::parse(std::span<const std::string>(options.policies)));
  SW_ASSIGN(auto access_log, AccessLog::open(options.access_log));
  return std::unique_ptr<Gateway>(new Gateway(std::move(options), std::move(policies), std::move(access_log), tenants));
}

std::optional<Endpoint> Gateway::endpoint_of(std::string_view path) {
  static const std::map<std::string_view, Endpoint> kPaths = {
      {"/v1/chat/completions", Endpoint::kChat},       {"/chat/completions", Endpoint::kChat},
      {"/beta/chat/completions", Endpoint::kChat},     {"/v1/completions", Endpoint::kCompletions},
      {"/completions", Endpoint::kBetaCompletions},    {"/beta/completions", Endpoint::kBetaCompletions},
      {"/v1/messages", Endpoint::kMessages},           {"/anthropic/v1/messages", Endpoint::kMessages},
      {"/v1/embeddings", Endpoint::kEmbeddings},       {"/v1/rerank", Endpoint::kRerank},
  };
  const auto found = kPaths.find(path);
  if (found == kPaths.end()) return std::nullopt;
  return found->second;
}

// The I/O thread's lane of this gateway; it ends with the thread, or when the thread serves another executor.
std::shared_ptr<Lane> Gateway::lane(const asio::any_io_executor& executor) {
  thread_local std::unordered_map<uint64_t, std::shared_ptr<Lane>> lanes;
  std::shared_ptr<Lane>& lane = lanes[id_];
  if (!lane || lane->executor() != executor) lane = std::make_shared<Lane>(executor, options_.idle_connections_max);
  return lane;
}

Decision Gateway::decide(const RequestFeatures& features, TimePoint now) {
  std::vector<UpstreamState> states;
  states.reserve(upstreams_.size());
  for (const auto& upstream : upstreams_) states.push_back(upstream->state(now));
  return policies_.decide(features, states, now, &prefixes_);
}

std::vector<std::string> Gateway::models() const {
  std::set<std::string> names;
  for (const auto& upstream : upstreams_) names.insert(upstream->info().models.begin(), upstream->info().models.end());
  for (const auto& [alias, target] : options_.aliases) names.insert(alias);
  return {names.begin(), names.end()};
}

asio::awaitable<Answered> Gateway::answer(net::HttpRequest request, Endpoint endpoint, net::ResponseWriter& writer) {
  const TimePoint received = std::chrono::steady_clock::now();
  std::string_view key = request.headers.value_or("x-api-key", "");
  const std::string_view authorization = request.headers.value_or("Authorization", "");
  if (key.empty() && authorization.starts_with("Bearer ")) key = authorization.substr(7);
  std::string client_key(key);
  const std::string id = request.id;
  auto call = understand(std::move(request), endpoint, options_, received);
  if (!call.ok()) {
    const api::ApiError& error = call.error();
    net::Headers fields = net::Headers::of("Content-Type", "application/json", "X-Request-Id", id);
    std::string body = endpoint == Endpoint::kMessages ? api::anthropic_error_body(error) : api::openai_error_body(error);
    co_await writer.send(error.http_status(), std::move(fields), std::move(body));
    Answered refused;
    refused.status = error.http_status();
    refused.outcome = api::error_row(error.kind).label;
    co_return refused;
  }
  call->client_key = std::move(client_key);
  Journey journey(*this, lane(writer.executor()), std::move(call).value(), writer);
  co_return co_await journey.run();
}

}  // namespace spillway::gateway
