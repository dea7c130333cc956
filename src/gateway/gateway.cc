#include "gateway/gateway.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <unordered_map>

#include "gateway/journey.h"
#include "gateway/json_cursor.h"
#include "gateway/responses_writer.h"

namespace spillway::gateway {
namespace {

std::atomic<uint64_t> next_id{1};

constexpr Duration kLocalInterval = std::chrono::milliseconds(100);
constexpr int kLocalUnwellLooks = 20;  // what it said of itself lasts, when nobody asks

// The index goes by places in the list, so it goes on only where the list is the same.
std::shared_ptr<PrefixIndex> prefixes_after(const Gateway* before, const std::vector<UpstreamOptions>& upstreams,
                                            std::shared_ptr<PrefixIndex> known) {
  const bool same =
      before != nullptr && std::ranges::equal(before->options().upstreams, upstreams,
                                              [](const auto& a, const auto& b) { return a.info.name == b.info.name; });
  return same ? known : std::make_shared<PrefixIndex>();
}

}  // namespace

Gateway::Gateway(GatewayOptions options, PolicyChain policies, std::shared_ptr<AccessLog> access_log,
                 std::shared_ptr<const Surroundings> around, const Gateway* before)
    : options_(std::move(options)),
      policies_(std::move(policies)),
      access_log_(std::move(access_log)),
      around_(std::move(around)),
      id_(next_id.fetch_add(1)),
      retry_budget_(options_.retry_budget),
      prefixes_(prefixes_after(before, options_.upstreams, before == nullptr ? nullptr : before->prefixes_)),
      waiting_(size_t(options_.queue_requests_max)) {
  for (const UpstreamOptions& wanted : options_.upstreams) {
    std::shared_ptr<Upstream> upstream;
    if (before != nullptr && !wanted.written.empty()) {
      const auto same = std::ranges::find_if(before->upstreams_,
                                             [&](const auto& u) { return u->options().written == wanted.written; });
      if (same != before->upstreams_.end()) upstream = *same;
    }
    upstreams_.push_back(upstream ? upstream : std::make_shared<Upstream>(wanted));
  }
  prober_ = Prober::start(upstreams_, prefixes_);
}

Result<std::shared_ptr<Gateway>> Gateway::create(GatewayOptions options, std::shared_ptr<const Surroundings> around,
                                                 const Gateway* before) {
  if (options.upstreams.empty()) return invalid("gateway.upstreams: expected at least one upstream, found none");
  if (options.upstreams.size() > kPrefixUpstreamsMax) return invalid("gateway.upstreams: expected at most 256");
  SW_ASSIGN(PolicyChain policies, PolicyChain::parse(std::span<const std::string>(options.policies)));
  std::shared_ptr<AccessLog> access_log;
  if (before != nullptr && before->options_.access_log == options.access_log) {
    access_log = before->access_log_;
  } else {
    SW_ASSIGN(access_log, AccessLog::open(options.access_log));
  }
  return std::shared_ptr<Gateway>(
      new Gateway(std::move(options), std::move(policies), std::move(access_log), std::move(around), before));
}

std::optional<Endpoint> Gateway::endpoint_of(std::string_view path) {
  static const std::map<std::string_view, Endpoint> kPaths = {
      {"/v1/chat/completions", Endpoint::kChat},    {"/chat/completions", Endpoint::kChat},
      {"/beta/chat/completions", Endpoint::kChat},  {"/v1/completions", Endpoint::kCompletions},
      {"/completions", Endpoint::kBetaCompletions}, {"/beta/completions", Endpoint::kBetaCompletions},
      {"/v1/messages", Endpoint::kMessages},        {"/anthropic/v1/messages", Endpoint::kMessages},
      {"/v1/embeddings", Endpoint::kEmbeddings},    {"/v1/rerank", Endpoint::kRerank},
      {"/v1/reranking", Endpoint::kRerank},         {"/rerank", Endpoint::kRerank},
      {"/embeddings", Endpoint::kEmbeddings},       {"/v1/messages/count_tokens", Endpoint::kCountTokens},
      {"/v1/responses", Endpoint::kResponses},      {"/anthropic/v1/messages/count_tokens", Endpoint::kCountTokens},
      {"/responses", Endpoint::kResponses},
  };
  const auto found = kPaths.find(path);
  if (found == kPaths.end()) return std::nullopt;
  return found->second;
}

// The I/O thread's lane of this gateway. Lanes of gateways that are gone are dropped when a new one comes; all end with
// the thread.
std::shared_ptr<Lane> Gateway::lane(const asio::any_io_executor& executor) {
  struct Known {
    std::weak_ptr<Gateway> gateway;
    std::shared_ptr<Lane> lane;
  };
  thread_local std::unordered_map<uint64_t, Known> lanes;
  const auto found = lanes.find(id_);
  if (found != lanes.end() && found->second.lane->executor() == executor) return found->second.lane;
  std::erase_if(lanes, [](const auto& entry) { return entry.second.gateway.expired(); });
  auto lane = std::make_shared<Lane>(executor, options_.idle_connections_max);
  lanes[id_] = {weak_from_this(), lane};
  return lane;
}

// The models of this process say by a call what others say by /health: they are spared while they are not well.
void Gateway::look_at_local(TimePoint now) {
  TimePoint due = look_at_local_at_.load();
  if (!around_->local_well || now < due || !look_at_local_at_.compare_exchange_strong(due, now + kLocalInterval))
    return;
  const bool well = around_->local_well();
  for (const auto& upstream : upstreams_) {
    if (upstream->options().kind == UpstreamKind::kLocal)
      upstream->unwell(well ? TimePoint() : now + kLocalUnwellLooks * kLocalInterval);
  }
}

Decision Gateway::decide(const RequestFeatures& features, TimePoint now) {
  look_at_local(now);
  std::vector<UpstreamState> states;
  states.reserve(upstreams_.size());
  for (const auto& upstream : upstreams_) states.push_back(upstream->state(now));
  return policies_.decide(features, states, now, prefixes_.get());
}

Decision Gateway::decide(const RequestFeatures& features, const std::vector<UpstreamState>& states,
                         TimePoint now) const {
  return policies_.decide(features, states, now, prefixes_.get(), true);
}

std::vector<std::string> Gateway::models() const {
  std::set<std::string> names;
  for (const auto& upstream : upstreams_) names.insert(upstream->info().models.begin(), upstream->info().models.end());
  for (const auto& [alias, target] : options_.aliases) names.insert(alias);
  return {names.begin(), names.end()};
}

std::string Gateway::state_json() const {
  const TimePoint now = std::chrono::steady_clock::now();
  std::string out = fmt::format("{{\"waiting\":{},\"upstreams\":[", waiting_.size());
  bool first = true;
  for (const auto& upstream : upstreams_) {
    const UpstreamState state = upstream->state(now);
    out += fmt::format(
        R"({}{{"name":"{}","kind":"{}","tier":"{}","health":"{}","share":{:.3f},"in_flight":{},"limit":{},"prefill_tokens_per_s":{:.1f},"decode_tokens_per_s":{:.1f})",
        first ? "" : ",", upstream->name(), kind_name(upstream->options().kind), tier_name(upstream->info().tier),
        health_name(state.health), state.share, state.in_flight, upstream->limit(), state.rate.prefill_tokens_per_s,
        state.rate.decode_tokens_per_s);
    if (state.report) {
      out += fmt::format(
          R"(,"report":{{"age_s":{:.3f},"running":{},"waiting":{},"predicted_wait_s":{:.3f},"memory_used":{:.3f}}})",
          seconds(now - state.report->at), state.report->running, state.report->waiting, state.report->predicted_wait_s,
          state.report->memory_used);
    }
    out += "}";
    first = false;
  }
  return out + "]}";
}

asio::awaitable<Answered> Gateway::answer_response(net::HttpRequest request, net::ResponseWriter& writer) {
  const auto asked = responses_to_chat(request.body);
  if (!asked.ok()) {
    const api::ApiError error{api::ErrorKind::kInvalidFormat, asked.error().message, "", ""};
    const Answered refused = co_await refuse(Protocol::kOpenAi, request.id, error, writer);
    co_return refused;
  }
  request.path = "/v1/chat/completions";
  request.body = asked->chat;
  ResponsesWriter worded(writer, *asked);
  const Answered answered = co_await answer(std::move(request), Endpoint::kChat, worded);
  co_return answered;
}

asio::awaitable<Answered> Gateway::refuse(Protocol protocol, const std::string& id, const api::ApiError& error,
                                          net::ResponseWriter& writer) {
  net::Headers fields = net::Headers::of("Content-Type", "application/json", "X-Request-Id", id);
  std::string body =
      protocol == Protocol::kAnthropic ? api::anthropic_error_body(error) : api::openai_error_body(error);
  co_await writer.send(error.http_status(), std::move(fields), std::move(body));
  Answered refused;
  refused.status = error.http_status();
  refused.outcome = api::error_row(error.kind).label;
  co_return refused;
}

asio::awaitable<Answered> Gateway::answer(net::HttpRequest request, Endpoint endpoint, net::ResponseWriter& writer) {
  if (endpoint == Endpoint::kResponses) {
    const Answered answered = co_await answer_response(std::move(request), writer);
    co_return answered;
  }
  const std::shared_ptr<Gateway> self = shared_from_this();
  const TimePoint received = std::chrono::steady_clock::now();
  std::string_view key = request.headers.value_or("x-api-key", "");
  const std::string_view authorization = request.headers.value_or("Authorization", "");
  if (key.empty() && authorization.starts_with("Bearer ")) key = authorization.substr(7);
  std::string client_key(key);
  const std::string id = request.id;
  auto understood = understand(std::move(request), endpoint, options_, received);
  if (!understood.ok()) {
    const Answered refused = co_await refuse(client_protocol(endpoint), id, understood.error(), writer);
    co_return refused;
  }
  const auto call = std::make_shared<Call>(std::move(understood).value());
  call->client_key = std::move(client_key);
  Journey journey(self, lane(writer.executor()), call, writer);
  co_return co_await journey.run();
}

}  // namespace spillway::gateway
