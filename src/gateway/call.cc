#include "gateway/call.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "api/common.h"
#include "gateway/json_cursor.h"
#include "gateway/policies/prompt_scan.h"
#include "gateway/translate/translate.h"

namespace spillway::gateway {
namespace {

using api::ApiError;
using api::ErrorKind;

constexpr int64_t kTokensUnnamed = 8192;  // of an answer, for an upstream that must be told a number
constexpr int64_t kDeadlineMsMax = int64_t{24} * 3600 * 1000;

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

uint64_t seed_of(std::string_view id) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : id) hash = (hash ^ uint8_t(c)) * 0x100000001b3;
  return hash;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
  return out;
}

api::Parsed<TimePoint> deadline_of(const net::HttpRequest& request, const GatewayOptions& options, TimePoint now) {
  const auto header = request.headers.find("X-Request-Deadline");
  if (!header) return now + options.request_timeout;
  const auto ms = parse_integer(*header);
  if (!ms || *ms < 0 || *ms > kDeadlineMsMax) {
    return ApiError{ErrorKind::kInvalidFormat,
                    fmt::format("X-Request-Deadline: expected milliseconds from 0 to {}.", kDeadlineMsMax), "", ""};
  }
  return now + std::chrono::milliseconds(*ms);
}

int priority_of(const net::HttpRequest& request) {
  const std::string_view text = request.headers.value_or("X-Priority", "normal");
  if (net::equals_ignoring_case(text, "low")) return -1;
  if (net::equals_ignoring_case(text, "high")) return 1;
  return int(std::clamp<int64_t>(parse_integer(text).value_or(0), -1, 1));
}

// A copy of all headers is only made for a policy that asks for one.
bool reads_headers(const GatewayOptions& options) {
  return std::ranges::any_of(options.policies,
                             [](const std::string& policy) { return policy.find("header=") != std::string::npos; });
}

void set_features(Call& call, const GatewayOptions& options) {
  RequestFeatures& features = call.features;
  const BodyScan& scan = call.scan;
  PromptScan prompt(prefix_salt(features.model));
  prompt.add("", scan.messages.size > 0 ? scan.messages.of(call.request.body) : std::string_view(call.request.body));
  prompt.finish(features);
  features.max_tokens = scan.max_tokens.value_or(0);
  features.images = scan.images;
  features.tools = scan.tools;
  features.stream = scan.stream;
  features.priority = priority_of(call.request);
  features.deadline = call.deadline;
  features.session = call.request.headers.value_or("X-Session-Id", scan.user.of(call.request.body));
  features.seed = seed_of(call.request.id);
  if (!reads_headers(options)) return;
  features.headers.reserve(call.request.headers.size());
  for (const auto& [name, value] : call.request.headers) features.headers.emplace_back(lower(name), value);
}

}  // namespace

api::Parsed<Call> understand(net::HttpRequest request, Endpoint endpoint, const GatewayOptions& options,
                             TimePoint now) {
  Call call;
  call.endpoint = endpoint;
  call.protocol = client_protocol(endpoint);
  call.received = now;
  auto scan = scan_body(request.body);
  if (!scan.ok()) return ApiError{ErrorKind::kInvalidFormat, std::move(scan).error().message, "", ""};
  call.scan = *scan;
  if (scan->model.size == 0)
    return ApiError{ErrorKind::kInvalidFormat, "model: expected a name, found none", "model", ""};
  if (!call.generates() && scan->stream)
    return ApiError{ErrorKind::kInvalidFormat, "stream: not for this path", "stream", ""};
  auto deadline = deadline_of(request, options, now);
  if (!deadline.ok()) return deadline.error();
  call.deadline = *deadline;
  auto model = unescaped(scan->model.of(request.body));
  if (!model || api::utf8_lossy(*model) != *model)
    return ApiError{ErrorKind::kInvalidFormat, "model: expected a plain name", "model", ""};
  const auto alias = options.aliases.find(*model);
  call.features.model = alias == options.aliases.end() ? *model : alias->second;
  if (alias != options.aliases.end()) call.alias = *model;
  const auto traced = continue_trace(request.headers.value_or("traceparent", ""));
  call.trace = traced ? *traced : begin_trace();
  call.request = std::move(request);
  set_features(call, options);
  return call;
}

Protocol client_protocol(Endpoint endpoint) {
  const bool anthropic = endpoint == Endpoint::kMessages || endpoint == Endpoint::kCountTokens;
  return anthropic ? Protocol::kAnthropic : Protocol::kOpenAi;
}

std::string upstream_path(Endpoint endpoint, UpstreamKind kind) {
  const bool own = kind == UpstreamKind::kSpillway || kind == UpstreamKind::kLocal;
  const bool deepseek = kind == UpstreamKind::kDeepSeek;
  if (kind == UpstreamKind::kAnthropic) {
    if (endpoint == Endpoint::kCountTokens) return "/v1/messages/count_tokens";
    return endpoint == Endpoint::kMessages || endpoint == Endpoint::kChat ? "/v1/messages" : "";
  }
  switch (endpoint) {
    case Endpoint::kChat:
      return own ? "/v1/chat/completions" : "/chat/completions";
    case Endpoint::kCompletions:
      return own ? "/v1/completions" : deepseek ? "/beta/completions" : "/completions";
    case Endpoint::kBetaCompletions:
      return own || deepseek ? "/beta/completions" : "/completions";
    case Endpoint::kMessages:
      return own ? "/v1/messages" : deepseek ? "/anthropic/v1/messages" : "/chat/completions";
    case Endpoint::kEmbeddings:
      return own ? "/v1/embeddings" : deepseek ? "" : "/embeddings";
    case Endpoint::kRerank:
      return own ? "/v1/rerank" : deepseek ? "" : "/rerank";
    case Endpoint::kCountTokens:
      return own ? "/v1/messages/count_tokens" : "";
    case Endpoint::kResponses:
      break;
  }
  return "";
}

Protocol upstream_protocol(Endpoint endpoint, UpstreamKind kind) {
  if (kind == UpstreamKind::kAnthropic) return Protocol::kAnthropic;
  if (endpoint == Endpoint::kCountTokens) return Protocol::kAnthropic;
  return endpoint == Endpoint::kMessages && kind != UpstreamKind::kOpenAi ? Protocol::kAnthropic : Protocol::kOpenAi;
}

Result<std::string_view> upstream_body(const Call& call, UpstreamKind kind, std::string_view model,
                                       const std::vector<Splice>& more, std::string& buffer) {
  if (upstream_protocol(call.endpoint, kind) != call.protocol) {
    const std::string changed = more.empty() ? std::string() : spliced(call.request.body, more);
    const std::string_view body = more.empty() ? std::string_view(call.request.body) : changed;
    if (call.protocol == Protocol::kOpenAi) {
      SW_ASSIGN(buffer, chat_to_messages(body, model, kTokensUnnamed));
    } else {
      SW_ASSIGN(buffer, messages_to_chat(body, model));
    }
    return std::string_view(buffer);
  }
  const std::string_view asked = call.scan.model.of(call.request.body);
  if (asked == model && more.empty()) return std::string_view(call.request.body);
  std::vector<Splice> splices;
  if (asked != model) {
    std::string quoted;
    append_json_string(quoted, model);
    splices.push_back({{call.scan.model.begin - 1, call.scan.model.size + 2}, std::move(quoted)});
  }
  splices.insert(splices.end(), more.begin(), more.end());
  std::ranges::sort(splices, {}, [](const Splice& splice) { return splice.where.begin; });
  buffer = spliced(call.request.body, splices);
  return std::string_view(buffer);
}

std::string_view with_completion_tokens(std::string_view body, std::string& buffer) {
  JsonCursor cursor(body);
  std::vector<Splice> splices;
  std::string_view key;
  if (!cursor.enter_object()) return body;
  while (cursor.next_member(key)) {
    if (key == "max_completion_tokens") return body;
    if (key == "max_tokens")
      splices.push_back({{size_t(key.data() - body.data()), key.size()}, "max_completion_tokens"});
    cursor.skip();
  }
  std::string changed = spliced(body, splices);  // body may be the buffer
  buffer = std::move(changed);
  return buffer;
}

net::Headers upstream_headers(const Call& call, const UpstreamOptions& upstream, std::string_view key,
                              const std::array<uint8_t, 8>& span, TimePoint now) {
  net::Headers headers;
  headers.add("Content-Type", "application/json");
  headers.add("Accept", call.scan.stream ? "text/event-stream" : "application/json");
  headers.add("User-Agent", "spillway");
  headers.add("X-Request-Id", call.request.id);
  if (key.empty() && upstream.pass_key) key = call.client_key;
  const bool anthropic = upstream_protocol(call.endpoint, upstream.kind) == Protocol::kAnthropic;
  if (!key.empty() && anthropic) headers.add("x-api-key", std::string(key));
  if (!key.empty() && !anthropic) headers.add("Authorization", "Bearer " + std::string(key));
  for (const char* name : {"anthropic-version", "anthropic-beta", "tracestate", "X-Priority"}) {
    if (const auto value = call.request.headers.find(name)) headers.add(name, std::string(*value));
  }
  if (upstream.kind == UpstreamKind::kAnthropic && !headers.contains("anthropic-version")) {
    headers.add("anthropic-version", "2023-06-01");
  }
  headers.add("traceparent", call.trace.header(span));
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(call.deadline - now).count();
  headers.add("X-Request-Deadline", std::to_string(std::max<int64_t>(0, left)));
  return headers;
}

}  // namespace spillway::gateway
