// spillway serve: the server's life: listen, load, serve, drain.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "apps/attempt_spans.h"
#include "apps/bench/measure.h"
#include "apps/command.h"
#include "apps/gateway_front.h"
#include "apps/grpc_front.h"
#include "apps/local_model.h"
#include "apps/model_sources.h"
#include "apps/options.h"
#include "apps/progress.h"
#include "apps/signals.h"
#include "apps/system.h"
#include "apps/telemetry_parts.h"
#include "base/log.h"
#include "config/render.h"
#include "server/model_repository.h"
#include "server/repository_catalogue.h"
#include "server/server.h"
#include "tensor/device.h"

namespace spillway::apps {
namespace {

using config::Config;
using config::Key;
using config::Type;

server::ServerOptions server_options(const Config& config) {
  server::ServerOptions options;
  net::HttpServerOptions& http = options.http;
  http.address = config.text("network.host") == "localhost" ? "127.0.0.1" : config.text("network.host");
  http.port = uint16_t(config.integer("network.port"));
  http.tls_certificate_file = config.text("tls.cert");
  http.tls_key_file = config.text("tls.key");
  http.io_threads = int(config.integer("network.max_workers"));
  http.connections_max = size_t(config.integer("limits.connections"));
  http.header_bytes_max = uint32_t(config.bytes("limits.header_bytes"));
  http.body_bytes_max = uint64_t(config.bytes("limits.body_bytes"));
  http.bodies_bytes_max = uint64_t(config.bytes("limits.bodies_bytes"));
  http.rate_bytes_per_s_min = uint64_t(config.bytes("limits.rate_min"));
  http.header_timeout = from_seconds(config.seconds("limits.header_timeout"));
  http.body_timeout = from_seconds(config.seconds("limits.body_timeout"));
  http.idle_timeout = from_seconds(config.seconds("limits.idle_timeout"));
  http.write_timeout = from_seconds(config.seconds("limits.write_timeout"));
  const auto metrics_port = int(config.integer("network.metrics_port"));
  options.metrics_port = metrics_port > 0 ? metrics_port : -1;
  options.api_keys = config.strings("server.api_keys");
  options.api_keys_file = config.text("server.api_keys_file");
  options.admin_keys = config.strings("server.admin_keys");
  options.admin_keys_file = config.text("server.admin_keys_file");
  options.open_health = config.boolean("server.open_health");
  options.open_metrics = config.boolean("server.open_metrics");
  options.cors_origins = config.strings("server.cors");
  options.keep_alive_interval = from_seconds(config.seconds("server.keep_alive_interval"));
  options.trickle = config.boolean("server.trickle");
  options.strict_reasoning_content = config.boolean("server.strict_reasoning_content");
  options.admission.queue_requests_max = int(config.integer("engine.queue_requests_max"));
  options.admission.queue_tokens_max = config.integer("engine.queue_tokens_max");
  options.admission.queue_wait_max_s = config.seconds("engine.queue_wait_max");
  options.admission.stall_s = config.seconds("server.stall_timeout");
  return options;
}

constexpr int64_t kMeasuredBytes = 256 << 20;  // more than the processors' caches

// What was asked for and this build or machine does not do.
void warn_of_ignored(const Config& config) {
  for (const std::string& fallback : {device_fallback(config), precision_fallback(config)}) {
    if (!fallback.empty()) SW_WARN("{} (hardware.strict: true refuses instead)", fallback);
  }
}

Result<std::unique_ptr<server::Server>> listen(const Config& config, const std::shared_ptr<GatewayFront>& gateway,
                                               TelemetryParts& telemetry) {
  server::ServerOptions options = server_options(config);
  telemetry.attach(options);
  if (gateway) gateway->stand_before(options);
  if (gateway) options.upstreams = [gateway] { return gateway->upstreams(); };
  options.configuration = config::print_json(config);
  const std::string& device = config.text("hardware.device");
  const tensor::Device gpu{tensor::DeviceKind::kCuda, 0};
  if (device == "cpu" || (device == "auto" && !tensor::check_available(gpu).ok())) {
    const int threads = int(config.integer("hardware.threads"));
    options.measure_bandwidth = [threads] {
      return memory_bandwidth(threads > 0 ? threads : int(std::max(1U, std::thread::hardware_concurrency())),
                              kMeasuredBytes);
    };
  }
  const bool chosen = config.is_explicit(Key<Type::kInt>("network.metrics_port"));
  if (options.metrics_port > 0 && !chosen && port_error(options.http.address, options.metrics_port) == EADDRINUSE) {
    SW_WARN("port {} is in use, so /metrics is on the HTTP port alone (choose another with --metrics-port)",
            options.metrics_port);
    options.metrics_port = -1;
  }
  if (const int error = options.http.port == 0 ? 0 : port_error(options.http.address, options.http.port); error != 0) {
    return Error{
        ErrorCode::kUnavailable,
        fmt::format("cannot listen on {}:{}: {}{}", options.http.address, options.http.port, std::strerror(error),
                    error == EADDRINUSE ? " (another server? choose another with --port, or --port 0 for any)" : "")};
  }
  return server::Server::start(std::move(options));
}

// The gRPC front end, or null where it is off: by network.grpc_port, or for a gateway alone, which forwards HTTP.
Result<std::unique_ptr<server::GrpcServer>> listen_grpc(const Config& config, server::Server& server, bool no_model) {
  const bool chosen = config.is_explicit(Key<Type::kInt>("network.grpc_port"));
  server::GrpcOptions options;
  options.port = uint16_t(config.integer("network.grpc_port"));
  if (options.port == 0 || (no_model && !chosen)) return std::unique_ptr<server::GrpcServer>();
  const net::HttpServerOptions& http = server.options().http;
  options.address = http.address;
  options.tls_certificate_file = http.tls_certificate_file;
  options.tls_key_file = http.tls_key_file;
  options.message_bytes_max = http.body_bytes_max;
  options.threads = http.io_threads;
  if (!chosen && port_error(options.address, options.port) == EADDRINUSE) {
    SW_WARN("port {} is in use, so gRPC is not served (choose another with --grpc-port)", options.port);
    return std::unique_ptr<server::GrpcServer>();
  }
  if (const Status loaded = load_grpc(); !loaded.ok() && !chosen) {
    SW_WARN("{}: gRPC is not served", loaded.error().message);
    return std::unique_ptr<server::GrpcServer>();
  }
  SW_ASSIGN(auto started, start_grpc(options, server));
  SW_INFO("gRPC on {}:{}", http.address, started->port());
  return started;
}

Status write_port(const std::string& path, uint16_t port) {
  if (path.empty()) return {};
  const std::string part = path + ".part";
  {
    std::ofstream out(part);
    out << port << "\n";
    if (!out.flush()) return invalid("network.port_file: cannot write " + part);
  }
  if (std::rename(part.c_str(), path.c_str()) != 0)
    return invalid("network.port_file: " + path + ": " + std::strerror(errno));
  return {};
}

std::string url_of(const Config& config, uint16_t port) {
  const bool tls = !config.text("tls.cert").empty();
  const std::string& host = config.text("network.host");
  const std::string shown = host == "0.0.0.0" || host == "::"     ? "localhost"
                            : host.find(':') != std::string::npos ? "[" + host + "]"
                                                                  : host;
  return fmt::format("{}://{}:{}", tls ? "https" : "http", shown, port);
}

void announce(const Config& config, const server::ModelRepository& models, uint16_t port) {
  const std::string url = url_of(config, port);
  const bool keyed = !config.strings("server.api_keys").empty() || !config.text("server.api_keys_file").empty();
  const char* key = keyed ? " -H \"Authorization: Bearer $API_KEY\"" : "";
  std::string lines;
  for (const server::VersionPtr& version : models.ready()) {
    if (version->language) {
      const models::ModelInfo& info = version->language->engine().model().info();
      SW_INFO("ready: {} ({}, {:.1f} M parameters, {}) on {}, {:.2f} s after start", version->name, info.architecture,
              double(info.parameters) / 1e6, info.precision, url, seconds_since_process_start());
      lines += fmt::format(
          "  curl -N {}/v1/chat/completions -H 'Content-Type: application/json'{} \\\n"
          "    -d '{{\"model\": \"{}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"What is "
          "17 + 25?\"}}]}}'\n\n",
          url, key, version->name);
      continue;
    }
    const models::OneShotInfo& info = version->one_shot->info();
    SW_INFO("ready: {} version {} ({}, {:.1f} M parameters, {}) on {}, {:.2f} s after start", version->name,
            version->version, info.architecture, double(info.parameters) / 1e6, info.precision, url,
            seconds_since_process_start());
    if (info.vision || info.outputs.front() != models::OneShotOutput::kEmbedding) continue;
    lines += fmt::format(
        "  curl {}/v1/embeddings -H 'Content-Type: application/json'{} -d '{{\"model\": \"{}\", \"input\": "
        "\"Hello\"}}'\n\n",
        url, key, version->name);
  }
  if (!lines.empty()) std::fprintf(stderr, "\nTry it:\n\n%s", lines.c_str());
}

// What a model is loaded by: a changed one is loaded anew.
bool is_of_models(std::string_view key) {
  return key.starts_with("model.") || key.starts_with("batching.") || key.starts_with("store.");
}

// The models of this process, and the server's view of them.
class Models {
 public:
  Status load(const Config& config, const std::vector<Config>& each, server::Server& server) {
    std::string names;
    for (const Config& one : each) names += (names.empty() ? "" : ", ") + one.text("model.path");
    SW_INFO("listening on {}:{}, loading {}", config.text("network.host"), server.port(), names);
    // The threads that serve connections are there; those that compute come now, and stand back for them.
    if (::setpriority(PRIO_PROCESS, 0, int(config.integer("engine.niceness"))) != 0) {
      SW_WARN("engine.niceness: {}; the computing threads run as the others do", std::strerror(errno));
    }
    // The sources keep the function for reloads, which show no bar; nor do several models at once.
    auto progress = std::make_shared<Progress>("loading", Progress::Unit::kBytes);
    auto shown = std::make_shared<std::atomic<bool>>(each.size() == 1);
    SW_ASSIGN(auto sources, model_sources(
                                each,
                                [progress, shown, this](int64_t done, int64_t total) {
                                  if (!started_ && stop_signals() > 0) _exit(0);  // nothing has been accepted yet
                                  if (*shown) progress->update(done, total);
                                },
                                share_));
    repository_ = std::make_unique<server::ModelRepository>(std::move(sources), repository_options(config, server));
    const Status started = repository_->start();
    *shown = false;
    progress->finish();
    SW_TRY(started);
    started_ = true;
    each_ = each;
    publish(server);
    announce(config, *repository_, server.port());
    return {};
  }

  // Models as another configuration lists them: checked whole, then loaded beside those that serve.
  Status take_over(const std::vector<Config>& each) {
    if (repository_ == nullptr) return {};
    SW_ASSIGN(auto sources, model_sources(
                                each, [](int64_t, int64_t) {}, share_));
    std::vector<std::string> anew;
    for (const Config& one : each) {
      for (const Config& before : each_) {
        if (model_name(one) == model_name(before) && differ(one, before)) anew.push_back(model_name(one));
      }
    }
    each_ = each;
    return repository_->take_over(std::move(sources), anew);
  }

  // The server is told nothing more: it is about to go.
  void close() {
    std::lock_guard lock(publishing_);
    closed_ = true;
  }

 private:
  // In what a model is loaded by.
  static bool differ(const Config& a, const Config& b) {
    for (size_t i = 0; i < config::kOptionCount; ++i) {
      if (is_of_models(config::kOptions[i].key) && a.value(i) != b.value(i)) return true;
    }
    return false;
  }

  server::ModelRepository::Options repository_options(const Config& config, server::Server& server) {
    server::ModelRepository::Options options;
    options.memory_bytes_max = config.bytes("repository.memory");
    if (options.memory_bytes_max == 0) {
      options.memory_bytes_max = int64_t(double(read_memory().usable()) * config.number("hardware.memory_fraction"));
    }
    options.idle_timeout_s = config.seconds("repository.idle_timeout");
    options.wait_max_s = config.seconds("repository.wait_max");
    options.drain_timeout_s = config.seconds("server.drain_timeout");
    options.changed = [this, &server] { publish(server); };
    return options;
  }

  // Tells the server what is ready now; nothing before all that loads at the start has.
  void publish(server::Server& server) {
    std::lock_guard lock(publishing_);
    if (!started_ || closed_) return;
    server.serve(std::make_shared<server::RepositoryCatalogue>(*repository_));
  }

  std::mutex publishing_;
  std::atomic<bool> started_ = false;
  bool closed_ = false;  // under publishing_
  std::shared_ptr<engine::DeviceShare> share_ = std::make_shared<engine::DeviceShare>();
  std::vector<Config> each_;
  std::unique_ptr<server::ModelRepository> repository_;
};

// Takes over the hot options of the file as it is now, the keys of theirs, and the gateway. All or nothing; what asks
// for it are a signal and the admin API, on threads of their own.
class Reloader {
 public:
  Reloader(const ConfigFlags& flags, Config& config, server::Server& server, GatewayFront* gateway, Models& models)
      : flags_(flags), config_(config), server_(server), gateway_(gateway), models_(models) {}

  Status reload() {
    std::lock_guard lock(mutex_);
    Status taken = try_reload();
    if (!taken.ok()) SW_ERROR("reload: {}; nothing was changed", taken.error().message);
    return taken;
  }

 private:
  Status try_reload() {
    SW_ASSIGN(Config fresh, flags_.resolve());
    SW_ASSIGN(const std::vector<Config> each, fresh.each_model());
    std::shared_ptr<gateway::Gateway> next;
    if (gateway_ != nullptr) {
      SW_ASSIGN(next, gateway_->prepare(fresh));
    }
    const server::ServerOptions options = server_options(fresh);
    SW_TRY(server_.reload(options.api_keys, options.api_keys_file, options.admission, options.admin_keys,
                          options.admin_keys_file));
    if (gateway_ != nullptr) gateway_->take_over(std::move(next), fresh);
    SW_TRY(models_.take_over(each));
    for (size_t i = 0; i < config::kOptionCount; ++i) {
      const config::Option& option = config::kOptions[i];
      if (fresh.value(i) == config_.value(i)) continue;
      if (option.hot || is_of_models(option.key))
        SW_WARN("reload: {} is now {}", option.key, format_value(option, fresh.value(i)));
      else
        SW_WARN("reload: {} has changed, which needs a restart", option.key);
    }
    config_ = std::move(fresh);
    return {};
  }

  const ConfigFlags& flags_;
  Config& config_;
  server::Server& server_;
  GatewayFront* const gateway_;  // null: there is none
  Models& models_;
  std::mutex mutex_;
};

void wait_for_stop(Reloader& reloader) {
  constexpr double kForever = 3600;
  for (int reloads = reload_signals(); stop_signals() == 0;) {
    wait_for_signal(kForever);
    if (reload_signals() == reloads) continue;
    reloads = reload_signals();
    (void)reloader.reload();  // it has logged
  }
}

int drain(const Config& config, server::Server& server, server::GrpcServer* grpc) {
  const double allowed = config.seconds("server.drain_timeout");
  SW_INFO("stopping: {} requests get up to {:.0f} s to end; a second signal stops at once", server.requests_in_flight(),
          allowed);
  const TimePoint deadline = std::chrono::steady_clock::now() + from_seconds(allowed);
  bool clean = server.drain(deadline);
  if (grpc != nullptr) clean &= grpc->drain(deadline);
  if (clean)
    SW_INFO("stopped: every request was answered");
  else
    SW_WARN("stopped: some requests were cut off after {:.0f} s (server.drain_timeout)", allowed);
  return clean ? 0 : kFailed;
}

int serve(const ConfigFlags& flags, Config config) {
  auto telemetry = TelemetryParts::make(config);
  if (!telemetry.ok()) return fail(telemetry.error());
  std::optional<AttemptSpans> attempt_spans;
  if (telemetry::SpanExporter* spans = (*telemetry)->spans()) attempt_spans.emplace(*spans);
  auto gateway = GatewayFront::make(config, attempt_spans ? &*attempt_spans : nullptr);
  if (!gateway.ok()) return fail(gateway.error());
  const bool no_model = names_no_model(config);
  if (no_model && !*gateway) return fail(invalid("model.path: none leaves nothing to serve without gateway.upstreams"));
  auto each = config.each_model();
  if (!each.ok()) return fail(each.error());
  for (const Config& one : *each) {
    if (const auto checked = no_model ? Status() : check_model_options(one); !checked.ok())
      return fail(checked.error());
  }
  warn_of_ignored(config);
  catch_stop_signals();
  catch_reload_signal();
  Models models;  // outlives the server, whose connections use them
  auto server = listen(config, *gateway, **telemetry);
  if (!server.ok()) return fail(server.error());
  if (const auto started = (*telemetry)->start(config); !started.ok()) return fail(started.error());
  const auto reloader = std::make_shared<Reloader>(flags, config, **server, gateway->get(), models);
  if (*gateway) (*gateway)->begin(**server, [reloader] { return reloader->reload(); });
  if (no_model) {
    (*server)->serve(std::make_shared<server::FixedCatalogue>(std::vector<server::LanguagePtr>()));
    SW_INFO("ready: a gateway on {}:{}, {:.2f} s after start", config.text("network.host"), (*server)->port(),
            seconds_since_process_start());
  }
  auto grpc = listen_grpc(config, **server, no_model);
  if (!grpc.ok()) return fail(grpc.error());
  if (const auto written = write_port(config.text("network.port_file"), (*server)->port()); !written.ok())
    return fail(written.error());
  if (const auto loaded = no_model ? Status() : models.load(config, *each, **server); !loaded.ok())
    return fail(loaded.error());
  release_start_pages();
  wait_for_stop(*reloader);
  const int status = drain(config, **server, grpc->get());
  models.close();
  return status;
}

}  // namespace

void add_serve(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand(
      "serve", "Serve models over HTTP and gRPC (OpenAI's, DeepSeek's, Anthropic's, KServe's and TEI's API)");
  const auto flags = ConfigFlags::add(*command, every_section());
  command->callback([flags, &status] {
    auto config = flags->resolve();
    status = config.ok() ? serve(*flags, std::move(config).value()) : fail(config.error());
  });
}

}  // namespace spillway::apps
