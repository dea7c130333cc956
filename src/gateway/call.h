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
#include "net/http_message.h"

namespace spillway::gateway {

enum class Endpoint { kChat, kCompletions, kBetaCompletions, kMessages, kEmbeddings, kRerank };

struct Call {
  Endpoint endpoint = Endpoint::kChat;
  Protocol protocol = Protocol::kOpenAi;  // of the client
  net::HttpRequest request;
  BodyScan scan;
  RequestFeatures features;
  TimePoint received;
  TimePoint deadline;
  std::string client_key;                 // as presented, for upstreams that get it passed on

  bool generates() const { return endpoint != Endpoint::kEmbeddings && endpoint != Endpoint::kRerank; }
};

// Reads and checks what routing needs. aliases: names that stand for others.
api::Parsed<Call> understand(net::HttpRequest request, Endpoint endpoint, const GatewayOptions& options, TimePoint now);

// The path under the upstream's base; empty when this kind does not have the endpoint.
std::string upstream_path(Endpoint endpoint, UpstreamKind kind);

// The body for an upstream that calls the model so; the call's own when nothing has to change.
std::string_view upstream_body(const Call& call, std::string_view model, const std::vector<Splice>& more, std::string& buffer);

net::Headers upstream_headers(const Call& call, const UpstreamOptions& upstream, std::string_view key, TimePoint now);

}  // namespace spillway::gateway
