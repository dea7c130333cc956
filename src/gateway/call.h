// Call: a client's request as the gateway has understood it: what routing needs, and how to word it for an upstream.
// Made once a request; read-only afterwards.
#pragma once

#include <string>
#include <string_view>

#include "api/errors.h"
#include "gateway/answer_facts.h"
#include "gateway/body_scan.h"
#include "gateway/options.h"
#include "gateway/policy.h"
#include "gateway/trace_context.h"
#include "net/http_message.h"

namespace spillway::gateway {

// kResponses is answered as a chat completion in other words.
enum class Endpoint {
  kChat,
  kCompletions,
  kBetaCompletions,
  kMessages,
  kEmbeddings,
  kRerank,
  kCountTokens,
  kResponses
};

struct Call {
  Endpoint endpoint = Endpoint::kChat;
  Protocol protocol = Protocol::kOpenAi;  // of the client
  net::HttpRequest request;
  BodyScan scan;
  RequestFeatures features;
  std::string alias;  // by which the client calls the model; empty: by its name
  TimePoint received;
  TimePoint deadline;
  std::string client_key;  // as presented, for upstreams that get it passed on
  TraceContext trace;      // the caller's, or begun here

  bool generates() const {
    return endpoint != Endpoint::kEmbeddings && endpoint != Endpoint::kRerank && endpoint != Endpoint::kCountTokens;
  }
  bool costs() const { return endpoint != Endpoint::kCountTokens; }
};

// Reads and checks what routing needs. aliases: names that stand for others.
api::Parsed<Call> understand(net::HttpRequest request, Endpoint endpoint, const GatewayOptions& options, TimePoint now);

Protocol client_protocol(Endpoint endpoint);

// The dialect in which an upstream of this kind answers the endpoint; another than the client's is translated.
Protocol upstream_protocol(Endpoint endpoint, UpstreamKind kind);

// The path under the upstream's base, translated if need be; empty when this kind has nothing like the endpoint.
std::string upstream_path(Endpoint endpoint, UpstreamKind kind);

// The body for an upstream that calls the model so; the call's own when nothing has to change. An error: what is asked
// for cannot be said in the upstream's dialect.
Result<std::string_view> upstream_body(const Call& call, UpstreamKind kind, std::string_view model,
                                       const std::vector<Splice>& more, std::string& buffer);

// The body with the newer name of max_tokens, which OpenAI's reasoning models want. body may be the buffer's.
std::string_view with_completion_tokens(std::string_view body, std::string& buffer);

// span: of the attempt.
net::Headers upstream_headers(const Call& call, const UpstreamOptions& upstream, std::string_view key,
                              const std::array<uint8_t, 8>& span, TimePoint now);

}  // namespace spillway::gateway
