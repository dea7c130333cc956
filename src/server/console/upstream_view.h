// UpstreamView: one upstream as the console shows it. Whoever puts a gateway in front of the server gives a function
// that makes them (ServerOptions::upstreams); the server itself knows of no gateway.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace spillway::server {

struct UpstreamView {
  std::string name;
  std::string kind;       // "local", "openai", "deepseek", ...
  std::string tier;       // "centre", "edge", "provider"
  std::string health;     // "healthy", "probing", "down": the breaker closed, half open, open
  double share = 1;       // of its normal traffic, while it warms up
  double opens_in_s = 0;  // of one that is down: until it is tried again
  int in_flight = 0;
  int concurrency_max = 0;
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;
  double first_token_p50_s = 0;  // 0: not known
  double first_token_p99_s = 0;
  double price_input = 0;  // dollars for a million tokens
  double price_output = 0;
  std::vector<std::string> models;
  struct Report {
    double age_s = 0;
    int running = 0;
    int waiting = 0;
    double predicted_wait_s = 0;
    double memory_used = 0;
  };
  std::optional<Report> report;  // what it said of itself
};

}  // namespace spillway::server
