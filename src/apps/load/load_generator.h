// Load against any OpenAI-compatible chat/completions URL, streamed: arrivals that do not wait for answers (Poisson, or
// a recorded trace), or a fixed number of clients that do. One thread and one event loop; bounded in requests, time and
// requests under way; connects to the URL given and to nothing else.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "apps/load/latency_histogram.h"
#include "base/clock.h"
#include "base/result.h"

namespace spillway::apps {

struct LoadRequest {
  double at_s = 0;  // after the start; traces only
  std::string prompt;
  int max_tokens = 0;
};

struct LoadOptions {
  std::string url = "http://127.0.0.1:8000/v1";  // ".../v1"; /chat/completions is added
  std::string api_key;                           // empty: no Authorization header
  std::string model;                             // empty: the first that the server's /models names
  std::vector<std::string> prompts;              // taken in turn; empty: sums of random numbers
  int max_tokens = 32;
  float temperature = 0;

  // One of: a Poisson process of this rate, a trace, or this many clients, each with one request under way.
  double rate_per_s = 0;
  std::vector<LoadRequest> trace;
  int clients = 0;

  int64_t requests_max = 1'000'000;
  Duration duration = std::chrono::seconds(30);  // of arrivals; those under way are then awaited
  Duration request_timeout = std::chrono::seconds(120);
  int in_flight_max = 10'000;  // arrivals over it are not sent, and counted as such
  uint64_t seed = 1;
  bool tls_verify = true;
  std::string tls_ca_file;

  double ttft_objective_s = 1.0;  // a request is good when its first token came within this
  double itl_objective_s = 0.1;   // and its tokens on average within this of each other

  struct Progress {
    double elapsed_s = 0;
    int64_t sent = 0, in_flight = 0, completed = 0, good = 0, refused = 0, failed = 0, tokens = 0;
  };
  std::function<bool(const Progress&)> on_progress;  // a few times a second; false ends the run
};

struct LoadReport {
  double elapsed_s = 0;   // from the first arrival to the last answer
  double arrivals_s = 0;  // the part of it in which requests arrived
  int64_t sent = 0;
  int64_t completed = 0;     // streamed to the end
  int64_t good = 0;          // of them, within the objective
  int64_t refused = 0;       // 429 and 503
  int64_t refused_bare = 0;  // of them, without Retry-After
  int64_t failed = 0;        // anything else
  int64_t not_sent = 0;      // over in_flight_max
  int64_t tokens = 0;
  // Goodput: good answers a second while requests arrived (what comes when no more arrive is no work under load), or
  // over the whole run where that is more, as for short ones.
  double offered_per_s = 0, goodput_per_s = 0, completed_per_s = 0, tokens_per_s = 0;
  Percentiles ttft, itl, total;  // of the completed; ttft and total count from the planned arrival
  Percentiles refusal;           // request sent to refusal read
  Percentiles lateness;          // planned arrival to request sent: the generator's own delay
  double retry_after_min_s = 0, retry_after_max_s = 0;
  std::map<int, int64_t> statuses;
  std::map<std::string, int64_t> errors;  // the first few kinds
};

Result<LoadReport> run_load(const LoadOptions& options);

// A trace: one JSON object a line, {"at_s": 0.5, "prompt": "...", "max_tokens": 16}, sorted by at_s.
Result<std::vector<LoadRequest>> parse_trace(std::string_view text);

std::string render_text(const LoadReport& report, const LoadOptions& options);
std::string render_json(const LoadReport& report, const LoadOptions& options);
// One line for a terminal: "12.5 s  sent 340  in flight 12  good 98.2%  refused 4  failed 0  1,210 tok/s".
std::string render_progress(const LoadOptions::Progress& progress);

}  // namespace spillway::apps
