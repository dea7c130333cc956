// The vocabulary of routing: what a policy sees of a request and of the upstreams, and the Decision that comes of it.
// Plain values: no I/O, no locks, no clock of its own. A decision is a pure function of its inputs and of the request's
// seed, so that `spillway route explain` and the simulator reproduce what the gateway did.
// Whoever owns the upstreams (the router) makes one UpstreamState each from its counters and reports; measuring,
// retrying and talking to upstreams is not the policies' job.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace spillway::gateway {

enum class Tier { kCentre, kEdge, kProvider };
std::string_view tier_name(Tier tier);
Result<Tier> parse_tier(std::string_view text);  // "centre" (also "center"), "edge", "provider"

// US dollars for a million tokens.
struct Price {
  double input = 0;
  double output = 0;
  double cached_input = 0;  // of prompt tokens that the upstream had in its cache
};

// What configuration says of an upstream; constant for a configuration's life.
struct UpstreamInfo {
  std::string name;
  Tier tier = Tier::kProvider;
  std::vector<std::string> models;  // public model names it answers for; empty: any
  Price price;
  double weight = 1;               // for weighted; 0: never by weight
  int concurrency_max = 64;        // requests it runs at once; what pressure is measured against
  int64_t context_tokens_max = 0;  // 0: not known
  bool images = true;              // takes image parts
  bool tools = true;               // takes tool definitions
  bool reports_load = false;       // a Spillway: silence is then a sign, not a habit
  double round_trip_s = 0;         // network, added to every prediction
};

// Measured or configured speed. 0: not known yet.
struct ServiceRate {
  double prefill_tokens_per_s = 0;  // of the whole server
  double decode_tokens_per_s = 0;   // of one stream at the present concurrency
};

// What an upstream last said of itself.
struct LoadReport {
  TimePoint at;  // when it arrived, by our clock
  int running = 0;
  int waiting = 0;
  int64_t waiting_tokens = 0;   // prompt tokens not computed yet, over all waiting requests
  double predicted_wait_s = 0;  // its own prediction of the wait before a new request begins
  double memory_used = 0;       // 0..1 of its cache pages
};

enum class Health { kHealthy, kProbing, kDown };  // breaker closed, half open, open (or ejected)
std::string_view health_name(Health health);

// An upstream at the moment of a decision.
struct UpstreamState {
  const UpstreamInfo* info = nullptr;
  Health health = Health::kHealthy;
  double share = 1;                     // below 1 while it warms up after an ejection (slow start)
  int in_flight = 0;                    // our own requests there now
  int64_t in_flight_prompt_tokens = 0;  // of them, prompt tokens that have not given a first token yet
  int in_flight_at_report = 0;          // in_flight when the report below arrived: what came since is not in the report
  int64_t prompt_tokens_at_report = 0;  // in_flight_prompt_tokens at that time
  ServiceRate rate;
  std::optional<LoadReport> report;
};

// What policies may ask about a request. Made once a request (gateway/policies/prompt_scan.h).
struct RequestFeatures {
  std::string model;
  std::string tenant;
  int64_t prompt_tokens = 0;           // estimated
  int64_t max_tokens = 0;              // 0: the client named none
  int64_t output_tokens_expected = 0;  // 0: the policies assume kOutputTokensAssumed, or max_tokens where less
  bool images = false;
  bool tools = false;
  bool stream = false;
  std::string language;  // by script: "latin", "zh", "ja", "ko", "ru", "ar", "other"; "" without text
  int priority = 0;      // higher goes first
  std::optional<TimePoint> deadline;
  std::string session;  // what sticky choices hash: session header, user field or key id; may be empty
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::vector<uint64_t> prefix_blocks;                       // rolling hashes of the prompt's blocks, first to last
  double tokens_per_block = 0;
  uint64_t seed = 0;  // of all that is random about this request; from its id

  std::string_view header(std::string_view lower_case_name) const;
};

inline constexpr int64_t kOutputTokensAssumed = 256;
int64_t output_tokens_expected(const RequestFeatures& request);

// Dollars that the request would cost there with so many of its prompt tokens cached.
double cost_of(const RequestFeatures& request, const Price& price, double cached_tokens);

struct Candidate {
  size_t upstream = 0;               // index into the span given to decide()
  int band = 0;                      // lower first; policies of preference set it
  double score = 0;                  // lower first within a band; seconds unless a policy says otherwise
  double predicted_s = 0;            // to the last token; 0: nobody predicted
  double predicted_first_s = 0;      // to the first
  double cached_tokens = 0;          // of the prompt, believed to be in its cache
  double cost = 0;                   // dollars
  uint64_t tie = 0;                  // decides between equals; from the seed and the upstream's name
  std::vector<std::string> reasons;  // filled when explaining
};

struct Refusal {
  size_t upstream = 0;
  std::string reason;
};

struct Decision {
  std::vector<Candidate> order;  // to be tried in this order; empty: nobody may take it
  std::vector<Refusal> refused;  // filled when explaining
  std::optional<size_t> shadow;  // gets a copy whose answer is thrown away
  std::string policy;            // name of the last policy that moved the first candidate, for metrics
};

class PrefixIndex;

// What a policy works on: the candidates so far and the facts.
struct Deliberation {
  const RequestFeatures& request;
  std::span<const UpstreamState> upstreams;
  TimePoint now;
  const PrefixIndex* prefixes = nullptr;  // may be null: nothing is known of caches
  bool explain = false;
  Decision& decision;

  const UpstreamState& state(const Candidate& candidate) const { return upstreams[candidate.upstream]; }
  void note(Candidate& candidate, std::string_view policy, std::string text) const;  // when explaining
  // Removes the candidates for which drop(candidate) gives a reason; nothing keeps.
  template <class Drop>
  void refuse_if(Drop drop) {
    std::erase_if(decision.order, [&](Candidate& candidate) {
      std::optional<std::string> reason = drop(candidate);
      if (reason && explain) decision.refused.push_back({candidate.upstream, std::move(*reason)});
      return reason.has_value();
    });
  }
};

// One rule of routing. Narrows (refuse_if), prefers (band) or scores (score); never adds a candidate. Immutable after
// parsing; any thread.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  virtual void apply(Deliberation& deliberation) const = 0;
};

// A policy as configuration names it: "edge_first text_tokens_max=2000 pressure_max=0.8".
struct PolicySpec {
  std::string name;
  std::map<std::string, std::string> options;
};
Result<PolicySpec> parse_policy_spec(std::string_view text);

// The policies of a configuration, in order. Immutable; any thread.
class PolicyChain {
 public:
  // Errors name the policy and the option: "gateway.policies[1] edge_first: pressure_max: expected ..., found ...".
  static Result<PolicyChain> parse(std::span<const PolicySpec> specs);
  static Result<PolicyChain> parse(std::span<const std::string> specs);

  // What every chain does first: drops upstreams that lack the model, are down, or cannot take images, tools or the
  // length; then the policies in order; then sorts by band, score and a tie broken by the seed. Upstreams that are
  // probing come last in their band.
  Decision decide(const RequestFeatures& request, std::span<const UpstreamState> upstreams, TimePoint now,
                  const PrefixIndex* prefixes = nullptr, bool explain = false) const;

  bool empty() const { return policies_.empty(); }
  std::vector<std::string_view> names() const;

 private:
  std::vector<std::shared_ptr<const Policy>> policies_;
};

}  // namespace spillway::gateway
