// Server: the HTTP front end of the models in this process. It listens at once and answers health checks while models
// load; serve() hands it the models and makes it ready; drain() ends it with nothing truncated. Owned by the program,
// which also handles signals. Its connections live on the I/O threads of net::HttpServer.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "metrics/timeline.h"
#include "net/http_server.h"
#include "server/admission.h"
#include "server/auth.h"
#include "server/console/upstream_view.h"
#include "server/model_catalogue.h"
#include "server/prefix_ledger.h"
#include "server/served_model.h"
#include "telemetry/outcomes/outcomes.h"
#include "telemetry/request_record.h"

namespace spillway::server {

// What a front did, for the metrics.
struct FrontAnswer {
  int status = 0;
  const char* outcome = "ok";
  telemetry::RequestRecord facts;  // of them: model, upstream, tenant, tokens, cost
};

struct ServerOptions {
  net::HttpServerOptions http;        // address, port, TLS, limits; error_body is set by the server
  int metrics_port = -1;              // a second listener with /metrics and /health; -1: none, 0: any free one
  std::vector<std::string> api_keys;  // with api_keys_file: who may call; none at all: everyone
  std::string api_keys_file;
  std::vector<std::string> admin_keys;  // with admin_keys_file: who may see the console; none: who may call
  std::string admin_keys_file;
  bool open_health = true;                                  // /health needs no key
  bool open_metrics = true;                                 // /metrics needs no key
  std::vector<std::string> cors_origins;                    // "*": any
  Duration keep_alive_interval = std::chrono::seconds(10);  // of silence, before a comment is sent on a stream
  // Empty lines while a non-streaming answer is being made, as DeepSeek sends them. The status is then 200 before the
  // outcome is known and a later failure can only be told in the body, hence off.
  bool trickle = false;
  AdmissionBounds admission;
  bool strict_reasoning_content = false;  // reasoning_content in an input message is a 400
  // Answers in place of the models here what it takes, to the last byte; nothing when it leaves a request alone. It may
  // send requests back by answer_locally().
  using Front = std::function<net::asio::awaitable<std::optional<FrontAnswer>>(net::HttpRequest& request,
                                                                               net::ResponseWriter& writer)>;
  Front front;
  // Paths whose callers the front checks itself, instead of the keys above.
  std::function<bool(std::string_view path)> front_checks_key;
  // For the console: the upstreams of the front, and the options as resolved (JSON: [{key, value, origin, help}]).
  std::function<std::vector<UpstreamView>()> upstreams;
  std::string configuration;
  // Bytes a second that the memory of the models' device gives; called once, when somebody first looks and no request
  // is being answered. Empty: not known.
  std::function<double()> measure_bandwidth;
  // Why the device of the models cannot be trusted any more; an empty answer: it can. Asked on I/O threads.
  std::function<std::string()> device_fault;
  // Who hears of each request that has ended, on its I/O thread; they outlive the server.
  std::vector<telemetry::RequestSink*> sinks;
  telemetry::Outcomes* outcomes = nullptr;  // where feedback goes; null: /v1/feedback is not there
};

// What may change while serving.
struct HotOptions {
  AdmissionBounds admission;
  ApiKeys keys;
  ApiKeys admin_keys;
};

class LiveState;

enum class ServerState { kLoading, kReady, kDraining };

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(ServerOptions options);
  ~Server();

  uint16_t port() const { return http_->port(); }
  uint16_t metrics_port() const { return metrics_http_ ? metrics_http_->port() : 0; }

  // The models to serve; the server is ready from now on. Called again when the set of ready ones has changed.
  void serve(std::shared_ptr<ModelCatalogue> catalogue);

  // Answers by the models here, without keys and front.
  net::asio::awaitable<void> answer_locally(net::HttpRequest request, net::ResponseWriter& writer);

  // Takes over these keys, those of the file as it is now, and the bounds of admission. On an error nothing has
  // changed.
  Status reload(const std::vector<std::string>& api_keys, const std::string& api_keys_file,
                const AdmissionBounds& admission, const std::vector<std::string>& admin_keys = {},
                const std::string& admin_keys_file = {});

  // Refuses new requests with 503 and Connection: close; returns when the accepted ones have been answered to the last
  // byte, or false at the deadline. Blocks; not for an I/O thread.
  bool drain(TimePoint deadline);

  ServerState state() const { return state_; }
  int requests_in_flight() const { return in_flight_; }

  // ---- for the routes ----
  const ServerOptions& options() const { return options_; }
  std::shared_ptr<const HotOptions> hot() const;
  std::shared_ptr<ModelCatalogue> catalogue() const;  // never null; empty while loading
  std::vector<LanguagePtr> models() const { return catalogue()->languages(); }
  bool stalled() const;
  // "loading", "draining", "device_failed", "stalled" or "ready"; only the last takes requests from balancers.
  const char* status() const;
  bool ready() const { return std::string_view(status()) == "ready"; }
  std::string device_fault() const { return options_.device_fault ? options_.device_fault() : ""; }
  metrics::Timelines& timelines() { return timelines_; }
  LiveState& live() { return *live_; }
  PrefixLedger& prefixes() { return prefixes_; }

  // Counts a generation in, so that drain() waits for it; false when it may not begin any more.
  bool enter();
  void leave();

  // Counts memory of bodies that came packed, until it is given back; false over the bound for all bodies together.
  bool charge_unpacked(uint64_t bytes);
  void release_unpacked(uint64_t bytes) { unpacked_bytes_ -= bytes; }

  // Runs CPU work (long prompts, grammars) off the I/O threads, so that they answer everyone else meanwhile.
  net::asio::awaitable<void> run_aside(std::function<void()> work);
  // The same for work that may take seconds, such as loading a model: the short jobs do not wait behind it.
  net::asio::awaitable<void> run_apart(std::function<void()> work);
  // As run_aside, on a thread that reads metrics and does nothing else.
  net::asio::awaitable<void> run_scrape(std::function<void()> work);

 private:
  class Workers;
  explicit Server(ServerOptions options);
  Status listen();
  void set_queue_bounds();  // mutex_ is held

  ServerOptions options_;
  std::shared_ptr<const HotOptions> hot_;  // under mutex_
  std::atomic<ServerState> state_{ServerState::kLoading};
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  std::shared_ptr<ModelCatalogue> catalogue_;  // under mutex_
  std::atomic<int> in_flight_{0};              // changed under mutex_
  std::atomic<uint64_t> unpacked_bytes_{0};
  metrics::Timelines timelines_;
  PrefixLedger prefixes_;
  std::unique_ptr<LiveState> live_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<net::HttpServer> metrics_http_;
  std::unique_ptr<net::HttpServer> http_;  // last: its connections end before the rest goes
};

// Keeps a generation counted for as long as it lives.
class InFlight {
 public:
  explicit InFlight(Server& server) : server_(server), entered_(server.enter()) {}
  ~InFlight() {
    if (entered_) server_.leave();
  }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
  explicit operator bool() const { return entered_; }

 private:
  Server& server_;
  bool entered_;
};

}  // namespace spillway::server
