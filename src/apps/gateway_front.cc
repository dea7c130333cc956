#include "apps/gateway_front.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "api/errors.h"
#include "apps/system.h"
#include "base/log.h"
#include "gateway/configuration.h"
#include "gateway/json_cursor.h"
#include "gateway/tenants/redis_limits.h"
#include "gateway/tenants/redis_store.h"
#include "gateway/tenants/sqlite_store.h"

namespace spillway::apps {
namespace {

constexpr std::string_view kAdminPath = "/admin/v1/";
constexpr std::string_view kAdminPepper = "gateway-admin";

// OpenAI's schema wants `created`; when an upstream's model was made nobody tells, so it is when this program began.
std::string model_entry(const std::string& name) {
  static const int64_t began =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count() -
      int64_t(seconds_since_process_start());
  std::string entry = "{\"id\":";
  gateway::append_json_string(entry, name);
  return fmt::format("{},\"object\":\"model\",\"created\":{},\"owned_by\":\"spillway\"}}", entry, began);
}

std::string model_list(const std::vector<std::string>& names) {
  std::string body = "{\"object\":\"list\",\"data\":[";
  for (size_t i = 0; i < names.size(); ++i) body += (i > 0 ? "," : "") + model_entry(names[i]);
  return body + "]}";
}

// What the caller may use.
std::vector<std::string> shown_models(const gateway::Gateway& gateway, const std::optional<gateway::Caller>& caller) {
  std::vector<std::string> models = gateway.models();
  const auto& aliases = gateway.options().aliases;
  std::erase_if(models, [&](const std::string& name) {
    const auto alias = aliases.find(name);
    return caller && (alias == aliases.end() ? !caller->may_use(name) : !caller->may_use(alias->second, name));
  });
  return models;
}

std::string_view client_key(const net::HttpRequest& request) {
  const std::string_view key = request.headers.value_or("x-api-key", "");
  const std::string_view authorization = request.headers.value_or("Authorization", "");
  return key.empty() && authorization.starts_with("Bearer ") ? authorization.substr(7) : key;
}

// What the server guards itself, by rules of its own.
bool is_open(std::string_view path) {
  return path.starts_with("/health") || path == "/metrics" || path.starts_with("/console");
}

server::FrontAnswer answer_of(int status, const char* outcome) {
  server::FrontAnswer answer;
  answer.status = status;
  answer.outcome = outcome;
  return answer;
}

std::string error_body(api::ErrorKind kind, std::string message) {
  return api::openai_error_body({kind, std::move(message), "", ""});
}

}  // namespace

GatewayFront::GatewayFront()
    : around_(std::make_shared<gateway::Surroundings>()), discovery_(gateway::KubernetesAccess::of_environment()) {}

Result<std::shared_ptr<GatewayFront>> GatewayFront::make(const config::Config& config, gateway::SpanSink* spans) {
  if (!gateway::has_gateway(config)) return std::shared_ptr<GatewayFront>();
  std::shared_ptr<GatewayFront> front(new GatewayFront);
  SW_ASSIGN(const auto options, gateway::gateway_options(config));
  SW_TRY(front->open_tenants(config));
  front->cache_ = std::make_unique<gateway::ResponseCache>(
      gateway::ResponseCacheOptions{options.cache_bytes_max, options.cache_ttl, options.cache_any_temperature});
  front->around_->tenants = front->tenants_.get();
  front->around_->cache = front->cache_.get();
  front->around_->coalescer = options.coalesce_embeddings ? &front->coalescer_ : nullptr;
  front->around_->spans = spans;
  front->around_->current = [held = front.get()] { return held->gateway(); };
  SW_ASSIGN(auto gateway, front->prepare(config));
  front->take_over(std::move(gateway), config);
  return front;
}

Status GatewayFront::open_tenants(const config::Config& config) {
  SW_ASSIGN(const std::string admin_key, gateway::secret(config.text("gateway.admin_key"), "gateway.admin_key"));
  if (!admin_key.empty()) admin_digest_ = gateway::key_digest(admin_key, kAdminPepper);
  const std::string& where = config.text("gateway.tenants");
  if (where.empty()) return {};
  gateway::LedgerOptions options;
  SW_ASSIGN(options.pepper, gateway::secret(config.text("gateway.tenants_pepper"), "gateway.tenants_pepper"));
  options.fail_open = config.boolean("gateway.tenants_fail_open");
  std::unique_ptr<gateway::TenantStore> store;
  std::shared_ptr<gateway::SharedLimits> shared;
  if (where.starts_with("redis://")) {
    SW_ASSIGN(const auto redis, gateway::parse_redis_url(where));
    store = gateway::make_redis_store(redis);
    shared = gateway::make_redis_limits(redis);
  } else if (where.find("://") != std::string::npos) {
    return invalid("gateway.tenants: expected a file or redis://, found " + where.substr(0, where.find("://") + 3));
  } else {
    SW_ASSIGN(store, gateway::open_sqlite_store(where));
  }
  auto ledger = gateway::TenantLedger::open(std::move(store), std::move(shared), std::move(options));
  if (!ledger.ok()) return std::move(ledger).error().in("gateway.tenants");
  tenants_ = std::move(ledger).value();
  admin_ = std::make_unique<gateway::AdminApi>(*tenants_, admin_key);
  return {};
}

GatewayFront::~GatewayFront() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (discoverer_.joinable()) discoverer_.join();
  gateway_.reset();
}

void GatewayFront::stand_before(server::ServerOptions& options) {
  options.front = [this](net::HttpRequest& request, net::ResponseWriter& writer) { return answer(request, writer); };
  const bool tenants = tenants_ != nullptr;
  options.front_checks_key = [tenants](std::string_view path) {
    return path.starts_with(kAdminPath) || (tenants && !is_open(path));
  };
}

void GatewayFront::begin(server::Server& server, std::function<Status()> reload) {
  server_ = &server;
  reload_ = std::move(reload);
  around_->local = [&server](net::HttpRequest request, net::ResponseWriter& writer) {
    return server.answer_locally(std::move(request), writer);
  };
  around_->local_well = [&server] {
    const std::string_view status = server.status();
    return status != "device_failed" && status != "stalled";
  };
  discoverer_ = std::thread([this] { discover(); });
  begun_ = true;
}

std::shared_ptr<gateway::Gateway> GatewayFront::gateway() const {
  std::lock_guard lock(mutex_);
  return gateway_;
}

Result<std::shared_ptr<gateway::Gateway>> GatewayFront::prepare(const config::Config& config) const {
  SW_ASSIGN(auto options, gateway::gateway_options(config));
  std::vector<std::string> problems;
  if (gateway::Discovery::wanted(options.upstreams)) {
    std::lock_guard lock(discovery_mutex_);
    options.upstreams = discovery_.expand(options.upstreams, problems);
  }
  for (const std::string& problem : problems) SW_WARN("discovery: {}", problem);
  const auto before = gateway();
  return gateway::Gateway::create(std::move(options), around_, before.get());
}

void GatewayFront::take_over(std::shared_ptr<gateway::Gateway> next, const config::Config& config) {
  auto options = gateway::gateway_options(config);
  std::shared_ptr<gateway::Gateway> before;  // ends after the lock, and only when its last request has ended
  {
    std::lock_guard lock(mutex_);
    before = std::exchange(gateway_, std::move(next));
    if (options.ok()) written_ = std::move(options).value();
    discovery_interval_ = from_seconds(config.seconds("gateway.discovery_interval"));
  }
  wake_.notify_all();
}

// Looks for the upstreams that have discovery, again and again; another set of them is another gateway.
void GatewayFront::discover() {
  for (;;) {
    gateway::GatewayOptions options;
    std::shared_ptr<gateway::Gateway> before;
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, discovery_interval_, [this] { return stopping_; })) return;
      if (!gateway::Discovery::wanted(written_.upstreams)) continue;
      options = written_;
      before = gateway_;
    }
    std::vector<std::string> problems;
    {
      std::lock_guard lock(discovery_mutex_);
      options.upstreams = discovery_.expand(options.upstreams, problems);
    }
    for (const std::string& problem : problems) SW_WARN("discovery: {}; the addresses known last go on", problem);
    const bool same = std::ranges::equal(options.upstreams, before->options().upstreams,
                                         [](const auto& a, const auto& b) { return a.written == b.written; });
    if (same) continue;
    auto next = gateway::Gateway::create(std::move(options), around_, before.get());
    if (!next.ok()) {
      SW_WARN("discovery: {}", next.error().message);
      continue;
    }
    std::lock_guard lock(mutex_);
    if (gateway_ != before) continue;  // another configuration came meanwhile
    gateway_ = std::move(next).value();
    SW_INFO("discovery: {} upstreams now", gateway_->upstreams().size());
  }
}

bool GatewayFront::is_admin(std::string_view authorization) const {
  if (!admin_digest_ || !authorization.starts_with("Bearer ")) return false;
  return gateway::same_digest(gateway::key_digest(authorization.substr(7), kAdminPepper), *admin_digest_);
}

gateway::AdminResponse GatewayFront::handle(const gateway::AdminRequest& request) {
  if (!is_admin(request.authorization)) {
    return {401, error_body(api::ErrorKind::kAuthentication, "The admin API wants the admin key.")};
  }
  const std::string_view what = std::string_view(request.path).substr(kAdminPath.size());
  if (what == "gateway" && request.method == "GET") return {200, gateway()->state_json()};
  if (what == "reload" && request.method == "POST") {
    const Status taken = reload_();
    if (taken.ok()) return {200, R"({"reloaded":true})"};
    return {422, error_body(api::ErrorKind::kInvalidParameters, taken.error().message + "; nothing was changed")};
  }
  if (admin_) return admin_->handle(request);
  return {404, error_body(api::ErrorKind::kNotFound, "No such path: there are no tenants (gateway.tenants).")};
}

net::asio::awaitable<server::FrontAnswer> GatewayFront::administer(net::HttpRequest& request,
                                                                   net::ResponseWriter& writer) {
  gateway::AdminRequest asked;
  asked.method = request.method;
  asked.path = request.path;
  asked.authorization = request.headers.value_or("Authorization", "");
  asked.body = request.body;
  asked.peer = request.peer;
  for (const char* name : {"key", "from", "limit"}) {
    if (const auto value = request.query_parameter(name)) asked.query[name] = *value;
  }
  const auto response = std::make_shared<gateway::AdminResponse>();
  std::function<void()> work = [this, asked = std::move(asked), response] { *response = handle(asked); };
  co_await server_->run_aside(std::move(work));
  net::Headers fields = net::Headers::of("Content-Type", "application/json", "X-Request-Id", request.id);
  const int status = response->status;
  std::string body = std::move(response->body);
  co_await writer.send(status, std::move(fields), std::move(body));
  server::FrontAnswer answered = answer_of(status, status < 400 ? "ok" : "admin_error");
  co_return answered;
}

std::vector<server::UpstreamView> GatewayFront::upstreams() const {
  const TimePoint now = std::chrono::steady_clock::now();
  std::vector<server::UpstreamView> views;
  const std::shared_ptr<gateway::Gateway> present = gateway();
  for (const auto& upstream : present->upstreams()) {
    const gateway::UpstreamState state = upstream->state(now);
    server::UpstreamView view;
    view.name = upstream->name();
    view.kind = gateway::kind_name(upstream->options().kind);
    view.tier = gateway::tier_name(state.info->tier);
    view.health = gateway::health_name(state.health);
    view.share = state.share;
    if (state.health == gateway::Health::kDown) view.opens_in_s = seconds(upstream->may_admit_at(now) - now);
    view.in_flight = state.in_flight;
    view.concurrency_max = state.info->concurrency_max;
    view.prefill_tokens_per_s = state.rate.prefill_tokens_per_s;
    view.decode_tokens_per_s = state.rate.decode_tokens_per_s;
    view.first_token_p50_s = seconds(upstream->first_token_quantile(now, 0.5).value_or(Duration::zero()));
    view.first_token_p99_s = seconds(upstream->first_token_quantile(now, 0.99).value_or(Duration::zero()));
    view.price_input = state.info->price.input;
    view.price_output = state.info->price.output;
    view.models = state.info->models;
    if (const auto& said = state.report) {
      view.report = {seconds(now - said->at), said->running, said->waiting, said->predicted_wait_s, said->memory_used};
    }
    views.push_back(std::move(view));
  }
  return views;
}

net::asio::awaitable<std::optional<server::FrontAnswer>> GatewayFront::answer(net::HttpRequest& request,
                                                                              net::ResponseWriter& writer) {
  if (!begun_) co_return std::nullopt;  // the server says that it is loading
  if (request.path.starts_with(kAdminPath)) {
    const server::FrontAnswer answered = co_await administer(request, writer);
    co_return answered;
  }
  const auto endpoint = gateway::Gateway::endpoint_of(request.path);
  const std::shared_ptr<gateway::Gateway> gateway = this->gateway();
  if (endpoint && request.method == "POST") {
    const gateway::Answered done = co_await gateway->answer(std::move(request), *endpoint, writer);
    server::FrontAnswer answered = answer_of(done.status, done.outcome);
    answered.facts.model = done.model;
    answered.facts.answered_by = done.answered_by;
    answered.facts.upstream = done.upstream;
    answered.facts.tenant = done.tenant;
    answered.facts.finish_reason = done.finish_reason;
    answered.facts.first_token_s = done.first_token_s;
    answered.facts.prompt_tokens = done.usage.prompt_tokens;
    answered.facts.cached_tokens = done.usage.cached_tokens;
    answered.facts.output_tokens = done.usage.output_tokens;
    answered.facts.cost = done.cost;
    co_return answered;
  }
  std::optional<gateway::Caller> asking;
  if (tenants_ && !is_open(request.path)) {
    const auto caller = tenants_->authenticate(client_key(request));
    if (!caller.ok()) {
      net::Headers fields = net::Headers::of("Content-Type", "application/json", "WWW-Authenticate", "Bearer");
      const int status = caller.error().http_status();
      std::string body = api::openai_error_body(caller.error());
      co_await writer.send(status, std::move(fields), std::move(body));
      server::FrontAnswer answered = answer_of(status, api::error_row(caller.error().kind).label);
      co_return answered;
    }
    asking = *caller;
  }
  std::string_view path = request.path;
  if (path.starts_with("/v1")) path.remove_prefix(3);
  const bool asks = request.method == "GET" || request.method == "HEAD";
  const bool one = path.starts_with("/models/");
  if (!asks || (path != "/models" && !one)) co_return std::nullopt;
  const std::vector<std::string> models = shown_models(*gateway, asking);
  const std::string name(path.substr(std::min(path.size(), std::string_view("/models/").size())));
  const bool known = !one || std::ranges::find(models, name) != models.end();
  const int status = known ? 200 : 404;
  std::string body =
      !known ? api::openai_error_body(
                   {api::ErrorKind::kNotFound, "The model `" + name + "` does not exist.", "model", "model_not_found"})
      : one ? model_entry(name)
            : model_list(models);
  net::Headers fields = net::Headers::of("Content-Type", "application/json");
  co_await writer.send(status, std::move(fields), std::move(body));
  server::FrontAnswer answered = answer_of(status, known ? "ok" : "not_found");
  co_return answered;
}

}  // namespace spillway::apps
