#include "telemetry/span_exporter.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/log.h"
#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

namespace json = boost::json;

metrics::Counter spans_total("spillway_telemetry_spans_total", "Spans by what became of them: sent, dropped, failed.",
                             {"result"});

constexpr int kServer = 2, kOk = 1, kError = 2;

// 64-bit numbers are strings in OTLP's JSON.
class Attributes {
 public:
  void text(const char* key, const std::string& value) {
    if (!value.empty()) add(key, {{"stringValue", value}});
  }
  void integer(const char* key, int64_t value) { add(key, {{"intValue", std::to_string(value)}}); }
  void number(const char* key, double value) { add(key, {{"doubleValue", value}}); }
  void list_of(const char* key, const std::string& value) {
    if (!value.empty()) {
      add(key, {{"arrayValue", json::object{{"values", json::array{json::object{{"stringValue", value}}}}}}});
    }
  }
  json::array take() { return std::move(all_); }

 private:
  void add(const char* key, json::object value) {
    all_.push_back(json::object{{"key", key}, {"value", std::move(value)}});
  }
  json::array all_;
};

json::array attributes_of(const RequestRecord& request) {
  Attributes attributes;
  attributes.text("gen_ai.operation.name", request.operation);
  attributes.text("gen_ai.provider.name", "spillway");
  attributes.text("gen_ai.request.model", request.model);
  attributes.text("gen_ai.response.model", request.answered_by);
  attributes.text("gen_ai.response.id", request.id);
  attributes.list_of("gen_ai.response.finish_reasons", request.finish_reason);
  if (request.prompt_tokens > 0) attributes.integer("gen_ai.usage.input_tokens", request.prompt_tokens);
  if (request.output_tokens > 0) attributes.integer("gen_ai.usage.output_tokens", request.output_tokens);
  if (request.cached_tokens > 0) attributes.integer("gen_ai.usage.cache_read.input_tokens", request.cached_tokens);
  if (request.first_token_s) attributes.number("gen_ai.server.time_to_first_token", *request.first_token_s);
  if (request.protocol == RequestRecord::Protocol::kGrpc) {
    const size_t method = request.route.rfind('/');  // "/package.Service/Method"
    attributes.text("rpc.system", "grpc");
    attributes.text("rpc.service", request.route.substr(1, std::max<size_t>(method, 1) - 1));
    attributes.text("rpc.method", request.route.substr(method + 1));
    attributes.integer("rpc.grpc.status_code", request.grpc_code);
  } else {
    attributes.text("http.request.method", "POST");
    attributes.text("http.route", request.route);
    attributes.integer("http.response.status_code", request.status);
  }
  if (request.outcome != "ok") attributes.text("error.type", request.outcome);
  attributes.text("spillway.upstream", request.upstream);
  attributes.text("spillway.tenant", request.tenant);
  attributes.text("spillway.arm", request.arm);
  if (request.cost > 0) attributes.number("spillway.cost_dollars", request.cost);
  return attributes.take();
}

json::object span_of(const RequestRecord& request) {
  const bool failed = request.status >= 500 || (request.status == 200 && request.outcome != "ok");
  json::object span{{"traceId", request.trace.trace_id},
                    {"spanId", request.trace.span_id},
                    {"name", request.operation + (request.model.empty() ? "" : " " + request.model)},
                    {"kind", kServer},
                    {"startTimeUnixNano", std::to_string(request.started_unix_ns)},
                    {"endTimeUnixNano", std::to_string(request.started_unix_ns + int64_t(request.duration_s * 1e9))},
                    {"attributes", attributes_of(request)},
                    {"status", json::object{{"code", failed ? kError : kOk}}}};
  if (!request.trace.parent_id.empty()) span["parentSpanId"] = request.trace.parent_id;
  if (request.first_token_s) {
    const int64_t at = request.started_unix_ns + int64_t(*request.first_token_s * 1e9);
    span["events"] = json::array{json::object{{"timeUnixNano", std::to_string(at)}, {"name", "first_token"}}};
  }
  return span;
}

}  // namespace

std::string otlp_json(const std::vector<RequestRecord>& spans, const SpanExporterOptions& options) {
  Attributes resource;
  resource.text("service.name", options.service_name);
  resource.text("service.version", options.service_version);
  resource.integer("process.pid", ::getpid());
  json::array list;
  for (const RequestRecord& request : spans) list.push_back(span_of(request));
  const json::object scope{{"scope", json::object{{"name", "spillway"}}}, {"spans", std::move(list)}};
  const json::object whole{{"resource", json::object{{"attributes", resource.take()}}},
                           {"scopeSpans", json::array{scope}}};
  return json::serialize(json::object{{"resourceSpans", json::array{whole}}});
}

SpanExporter::SpanExporter(SpanExporterOptions options) : options_(std::move(options)), thread_([this] { run(); }) {}

SpanExporter::~SpanExporter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SpanExporter::record(const RequestRecord& request) {
  if (request.operation.empty() || !request.trace.sampled) return;
  bool full = false;
  {
    std::lock_guard lock(mutex_);
    full = waiting_.size() >= options_.waiting_max;
    if (!full) waiting_.push_back(request);
  }
  if (full) spans_total.with({"dropped"}).add();
}

void SpanExporter::run() {
  for (bool last = false; !last;) {
    std::vector<RequestRecord> taken;
    {
      std::unique_lock lock(mutex_);
      last = changed_.wait_for(lock, options_.interval, [this] { return stopping_; });
      taken.swap(waiting_);
    }
    for (size_t at = 0; at < taken.size(); at += options_.batch_max) {
      const size_t end = std::min(taken.size(), at + options_.batch_max);
      send({taken.begin() + ptrdiff_t(at), taken.begin() + ptrdiff_t(end)});
    }
  }
}

void SpanExporter::send(const std::vector<RequestRecord>& spans) {
  net::ClientRequest request;
  request.method = "POST";
  request.url = options_.url;
  request.headers = options_.headers;
  request.headers.set("Content-Type", "application/json");
  request.connect_timeout = std::chrono::seconds(5);
  request.response_timeout = request.read_timeout = std::chrono::seconds(10);
  request.body = otlp_json(spans, options_);
  const auto answer = net::fetch_blocking(std::move(request), options_.client);
  const bool sent = answer.ok() && answer->status / 100 == 2;
  spans_total.with({sent ? "sent" : "failed"}).add(double(spans.size()));
  if (sent) return;
  SW_WARN("telemetry otlp: {} spans were not taken: {}", spans.size(),
          answer.ok() ? "status " + std::to_string(answer->status) : answer.error().message);
}

}  // namespace spillway::telemetry
