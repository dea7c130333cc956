// What configuration says of the gateway: plain values, made by options_yaml.cc or by tests, constant for a
// configuration's life.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gateway/breaker.h"
#include "gateway/concurrency_limit.h"
#include "gateway/policy.h"
#include "gateway/retry_budget.h"
#include "net/url.h"

namespace spillway::gateway {

// local: the models of this process. deepseek: OpenAI's dialect, also Anthropic's under /anthropic.
enum class UpstreamKind { kLocal, kOpenAi, kDeepSeek, kAnthropic, kSpillway };
std::string_view kind_name(UpstreamKind kind);

struct UpstreamOptions {
  UpstreamInfo info;  // name, tier, models, price, weight, bounds
  UpstreamKind kind = UpstreamKind::kOpenAi;
  std::string address;  // where its host's name was found by discovery; empty: asked for
  net::Url base;        // "https://api.deepseek.com", "http://edge-1:8000/v1"
  std::map<std::string, std::string>
      models;  // public name to the upstream's own; a name that is missing stays as it is
  std::vector<std::string> keys;
  bool pass_key = false;    // without keys: the client's own key goes on
  std::string tls_ca_file;  // empty: the system's roots
  bool tls_verify = true;
  bool stream_usage = true;        // openai: asked for the usage of streams, which it would not tell
  bool continuation_safe = false;  // a cut answer may be continued by an assistant prefix
  bool hedge = true;               // may get a second copy of a slow request

  Duration connect_timeout = std::chrono::seconds(2);       // name, connection, TLS
  Duration first_token_timeout = std::chrono::seconds(30);  // keep-alives do not count
  Duration token_timeout = std::chrono::seconds(20);        // between two tokens
  double tokens_per_s_min = 0;                              // of a stream that has begun, over token_timeout; 0: any
  Duration answer_timeout = std::chrono::minutes(10);       // of a whole answer that is not streamed

  std::string health_path;  // probed with GET; empty: by kind, "-": never
  Duration health_interval = std::chrono::seconds(5);
  BreakerOptions breaker;
  ConcurrencyLimitOptions concurrency;

  // dns: each address of the host is an upstream; kubernetes: each ready endpoint of a service.
  enum class Discovery { kNone, kDns, kKubernetes } discovery = Discovery::kNone;
  std::string service;  // kubernetes: "NAMESPACE/NAME" or "NAMESPACE/NAME:PORT"

  std::string written;  // as the configuration wrote it, keys included: equal texts are the same upstream
};

struct GatewayOptions {
  std::vector<UpstreamOptions> upstreams;
  std::vector<std::string> policies;           // as PolicyChain reads them
  std::map<std::string, std::string> aliases;  // public model name to the one that is routed

  RetryBudgetOptions retry_budget;
  int attempts_max = 6;  // of one request, hedges included
  bool hedging = true;
  double hedge_quantile = 0.99;
  Duration hedge_after_min = std::chrono::milliseconds(50);

  Duration request_timeout = std::chrono::minutes(10);  // the deadline of who names none
  int queue_requests_max = 1024;                        // waiting for an upstream
  Duration queue_wait_max = std::chrono::seconds(60);   // at most, whatever the deadline
  Duration keep_alive_interval = std::chrono::seconds(10);
  uint64_t answer_bytes_max = 64 << 20;  // of one that is not streamed
  size_t idle_connections_max = 1024;    // kept open to upstreams, a thread
  size_t cache_bytes_max = 0;            // of whole answers kept; 0: none
  Duration cache_ttl = std::chrono::minutes(5);
  bool cache_any_temperature = false;
  bool coalesce_embeddings = true;
  std::string access_log;  // file; "-": standard output; empty: none
};

}  // namespace spillway::gateway
