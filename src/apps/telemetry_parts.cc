#include "apps/telemetry_parts.h"

#include <openssl/evp.h>

#include <chrono>
#include <utility>

#include "apps/local_model.h"
#include "base/log.h"
#include "net/url.h"
#include "telemetry/hardware/gpu_metrics.h"
#include "telemetry/hardware/host.h"
#include "telemetry/hardware/memory_traffic.h"
#include "tensor/cuda/cuda.h"

namespace spillway::apps {
namespace {

using config::Config;
using telemetry::OutletOptions;

std::string base64(const std::string& text) {
  std::string out(4 * ((text.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()), int(text.size()));
  out.resize(size_t(size));
  return out;
}

std::string percent_encoded(const std::string& text) {
  std::string out;
  for (const unsigned char c : text) {
    const bool plain = std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) {
      out += char(c);
    } else {
      out += '%';
      out += "0123456789ABCDEF"[c >> 4];
      out += "0123456789ABCDEF"[c & 15];
    }
  }
  return out;
}

Result<net::Url> url_of(const char* key, const std::string& text) {
  auto url = net::parse_url(text);
  if (!url.ok()) return std::move(url).error().in(key);
  return std::move(url).value();
}

Result<OutletOptions> influxdb(const Config& config) {
  OutletOptions outlet;
  outlet.name = "influxdb";
  outlet.form = OutletOptions::Form::kInfluxLines;
  outlet.points_per_s_max = config.number("telemetry.drain_points_per_s");
  SW_ASSIGN(const net::Url base, url_of("telemetry.influxdb_url", config.text("telemetry.influxdb_url")));
  const std::string& token = config.text("telemetry.influxdb_token");
  const std::string database = percent_encoded(config.text("telemetry.influxdb_database"));
  if (config.text("telemetry.influxdb_api") == "v2") {
    const std::string& organisation = config.text("telemetry.influxdb_org");
    if (organisation.empty()) return invalid("telemetry.influxdb_org: expected an organisation for API v2, found none");
    outlet.url = net::join_path(
        base, "/api/v2/write?org=" + percent_encoded(organisation) + "&bucket=" + database + "&precision=ms");
    if (!token.empty()) outlet.headers.set("Authorization", "Token " + token);
    return outlet;
  }
  outlet.url = net::join_path(base, "/write?db=" + database + "&precision=ms");
  if (!token.empty()) outlet.headers.set("Authorization", "Basic " + base64(token));
  return outlet;
}

Result<OutletOptions> remote_write(const Config& config) {
  OutletOptions outlet;
  outlet.name = "remote_write";
  outlet.form = OutletOptions::Form::kRemoteWrite;
  outlet.points_per_s_max = config.number("telemetry.drain_points_per_s");
  SW_ASSIGN(outlet.url, url_of("telemetry.remote_write_url", config.text("telemetry.remote_write_url")));
  const std::string& token = config.text("telemetry.remote_write_token");
  if (!token.empty()) outlet.headers.set("Authorization", "Bearer " + token);
  return outlet;
}

// Spans have a folder and a share of the bound of their own, so that neither they nor points push the other out.
constexpr double kSpansShare = 0.25;

telemetry::SpoolOptions spool_options(const Config& config, bool with_spans, bool of_spans) {
  using Sync = telemetry::SpoolOptions::Sync;
  telemetry::SpoolOptions options;
  options.folder = config.text("telemetry.spool_dir");
  if (of_spans) options.folder += "/spans";
  const auto bytes = double(config.bytes("telemetry.spool_bytes_max"));
  options.bytes_max = uint64_t(of_spans ? bytes * kSpansShare : with_spans ? bytes * (1 - kSpansShare) : bytes);
  options.segment_bytes = std::min<uint64_t>(options.segment_bytes, options.bytes_max / 4);
  const std::string& sync = config.text("telemetry.spool_sync");
  options.sync = sync == "always" ? Sync::kAlways : sync == "never" ? Sync::kNever : Sync::kInterval;
  return options;
}

Result<std::unique_ptr<telemetry::SpanExporter>> span_exporter(const Config& config) {
  if (config.text("telemetry.otlp_url").empty()) return std::unique_ptr<telemetry::SpanExporter>();
  telemetry::SpanExporterOptions options;
  SW_ASSIGN(options.url, url_of("telemetry.otlp_url", config.text("telemetry.otlp_url")));
  const std::string& token = config.text("telemetry.otlp_token");
  if (!token.empty()) options.headers.set("Authorization", "Bearer " + token);
  options.spans_per_s_max = config.number("telemetry.drain_points_per_s");
  if (!config.text("telemetry.spool_dir").empty()) options.spool = spool_options(config, true, true);
  return telemetry::SpanExporter::start(std::move(options));
}

int64_t unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Reads the GPUs where there are any.
std::function<void()> gpu_sampler(const Config& config, std::shared_ptr<telemetry::GpuFaults> faults) {
  auto nvml = telemetry::Nvml::load();
  if (!nvml.ok()) {
    const bool absent = nvml.error().code == ErrorCode::kNotFound;
    if (!absent) SW_WARN("telemetry: no GPU is read: {}", nvml.error().message);
    return nullptr;
  }
  const std::shared_ptr<telemetry::Nvml> shared = std::move(nvml).value();
  const bool dcgm = config.boolean("telemetry.dcgm_names");
  return [shared, dcgm, faults = std::move(faults)] {
    telemetry::record_gpus(*shared, dcgm, std::chrono::steady_clock::now(), faults.get());
  };
}

Result<std::shared_ptr<telemetry::GpuFaults>> gpu_faults(const Config& config) {
  std::set<std::string> used;
  SW_ASSIGN(const auto models, config.each_model());
  for (const Config& model : models) {
    if (model.text("model.path") == "none") continue;
    const auto device = chosen_device(model);  // what is wrong with it is told where the model is loaded
    if (device.ok() && device->kind == tensor::DeviceKind::kCuda)
      used.insert(tensor::cuda::device_info(device->index).uuid);
  }
  const auto& ignored = config.integers("telemetry.xids_ignored");
  return std::make_shared<telemetry::GpuFaults>(std::move(used), std::set<uint64_t>(ignored.begin(), ignored.end()));
}

}  // namespace

Result<std::unique_ptr<TelemetryParts>> TelemetryParts::make(const Config& config) {
  std::unique_ptr<TelemetryParts> parts(
      new TelemetryParts({config.number("telemetry.objective"), config.seconds("telemetry.objective_latency")}));
  if (config.boolean("telemetry.feedback")) {
    telemetry::OutcomeOptions options;
    options.requests_max = size_t(config.integer("telemetry.feedback_requests_max"));
    options.late_after_s = config.seconds("telemetry.feedback_late_after");
    if (const std::string& folder = config.text("telemetry.feedback_dir"); !folder.empty()) {
      constexpr uint64_t kEntryBytes = 150;  // once remembered and once told of, with room
      const uint64_t bytes = std::max<uint64_t>(1 << 20, options.requests_max * kEntryBytes);
      SW_ASSIGN(options.journal, telemetry::Journal::open(folder, bytes));
    }
    parts->outcomes_ = std::make_unique<telemetry::Outcomes>(std::move(options));
  }
  telemetry::RecorderOptions& recording = parts->recording_;
  recording.interval = from_seconds(config.seconds("telemetry.interval"));
  if (!config.text("telemetry.influxdb_url").empty()) {
    SW_ASSIGN(OutletOptions outlet, influxdb(config));
    recording.outlets.push_back(std::move(outlet));
  }
  if (!config.text("telemetry.remote_write_url").empty()) {
    SW_ASSIGN(OutletOptions outlet, remote_write(config));
    recording.outlets.push_back(std::move(outlet));
  }
  recording.spool = spool_options(config, !config.text("telemetry.otlp_url").empty(), false);
  if (!recording.outlets.empty() && recording.spool.folder.empty()) {
    return invalid(
        "telemetry.spool_dir: expected a folder, since points are written there before they are sent; found none");
  }
  SW_ASSIGN(parts->spans_, span_exporter(config));
  SW_ASSIGN(parts->faults_, gpu_faults(config));
  return parts;
}

void TelemetryParts::attach(server::ServerOptions& options) {
  options.sinks.push_back(&objectives_);
  if (outcomes_) options.sinks.push_back(outcomes_.get());
  if (spans_) options.sinks.push_back(spans_.get());
  options.outcomes = outcomes_.get();
  options.device_fault = [faults = faults_] { return faults->fault(); };
}

Status TelemetryParts::start(const Config& config) {
  if (config.boolean("telemetry.hardware")) {
    recording_.samplers.emplace_back(telemetry::record_host);
    recording_.samplers.emplace_back(telemetry::record_memory_traffic);
    if (auto gpus = gpu_sampler(config, faults_)) recording_.samplers.push_back(std::move(gpus));
  }
  recording_.samplers.emplace_back([this] { objectives_.refresh(std::chrono::steady_clock::now()); });
  if (outcomes_)
    recording_.samplers.emplace_back([this] {
      outcomes_->publish(unix_s());
      outcomes_->save();
    });
  SW_ASSIGN(recorder_, telemetry::Recorder::start(std::move(recording_)));
  return {};
}

}  // namespace spillway::apps
