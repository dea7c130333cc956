#include "telemetry/span_exporter.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/string_view.hpp>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "metrics/metrics.h"
#include "telemetry/outlets/span_record.h"

namespace spillway::telemetry {
namespace {

namespace json = boost::json;

metrics::Counter spans_total(
    "spillway_telemetry_spans_total",
    "Spans by what became of them: spooled (then the points of the outlet otlp tell), or sent, failed, dropped.",
    {"result"});

constexpr const char* kOutletName = "otlp";
constexpr int kServer = 2, kClient = 3, kOk = 1, kError = 2;

void append_string(std::string& out, std::string_view text) { out += json::serialize(json::string_view(text)); }

// The list of attributes, written as text: building trees of JSON cost more than all else about a span. 64-bit numbers
// are strings in OTLP's JSON.
class Attributes {
 public:
  explicit Attributes(std::string& out) : out_(out) { out_ += '['; }
  void text(const char* key, std::string_view value) {
    if (value.empty()) return;
    begin(key);
    out_ += R"("stringValue":)";
    append_string(out_, value);
    out_ += "}}";
  }
  void integer(const char* key, int64_t value) {
    begin(key);
    fmt::format_to(std::back_inserter(out_), R"("intValue":"{}"}}}})", value);
  }
  void number(const char* key, double value) {
    begin(key);
    fmt::format_to(std::back_inserter(out_), R"("doubleValue":{}}}}})", value);
  }
  void list_of(const char* key, std::string_view value) {
    if (value.empty()) return;
    begin(key);
    out_ += R"("arrayValue":{"values":[{"stringValue":)";
    append_string(out_, value);
    out_ += "}]}}}";
  }
  void end() { out_ += ']'; }

 private:
  void begin(const char* key) {
    if (!std::exchange(first_, false)) out_ += ',';
    fmt::format_to(std::back_inserter(out_), R"({{"key":"{}","value":{{)", key);
  }
  std::string& out_;
  bool first_ = true;
};

void append_attributes(std::string& out, const RequestRecord& request) {
  Attributes attributes(out);
  attributes.text("gen_ai.operation.name", request.operation);
  attributes.text("gen_ai.provider.name", request.provider.empty() ? "spillway" : request.provider);
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
    if (request.status > 0) attributes.integer("http.response.status_code", request.status);
  }
  if (request.outcome != "ok") attributes.text("error.type", request.outcome);
  attributes.text("spillway.upstream", request.upstream);
  attributes.text("spillway.tenant", request.tenant);
  attributes.text("spillway.arm", request.arm);
  if (request.cost > 0) attributes.number("spillway.cost_dollars", request.cost);
  attributes.end();
}

void append_span(std::string& out, const RequestRecord& request) {
  const bool asks = !request.provider.empty();
  const bool failed =
      request.status >= 500 || ((asks || request.status == 200) && request.outcome != "ok");  // who asks takes 4xx ill
  const int64_t ended = request.started_unix_ns + int64_t(request.duration_s * 1e9);
  fmt::format_to(std::back_inserter(out), R"({{"traceId":"{}","spanId":"{}",)", request.trace.trace_id,
                 request.trace.span_id);
  if (!request.trace.parent_id.empty()) {
    fmt::format_to(std::back_inserter(out), R"("parentSpanId":"{}",)", request.trace.parent_id);
  }
  out += R"("name":)";
  append_string(out, request.operation + (request.model.empty() ? "" : " " + request.model));
  fmt::format_to(std::back_inserter(out),
                 R"(,"kind":{},"startTimeUnixNano":"{}","endTimeUnixNano":"{}","status":{{"code":{}}},"attributes":)",
                 asks ? kClient : kServer, request.started_unix_ns, ended, failed ? kError : kOk);
  append_attributes(out, request);
  if (request.first_token_s) {
    fmt::format_to(std::back_inserter(out), R"(,"events":[{{"timeUnixNano":"{}","name":"first_token"}}])",
                   request.started_unix_ns + int64_t(*request.first_token_s * 1e9));
  }
  out += '}';
}

}  // namespace

std::string otlp_json(const std::vector<RequestRecord>& spans, const SpanExporterOptions& options) {
  constexpr size_t kSpanBytes = 1500;
  std::string out;
  out.reserve(512 + spans.size() * kSpanBytes);
  out += R"({"resourceSpans":[{"resource":{"attributes":)";
  Attributes resource(out);
  resource.text("service.name", options.service_name);
  resource.text("service.version", options.service_version);
  resource.integer("process.pid", ::getpid());
  resource.end();
  out += R"(},"scopeSpans":[{"scope":{"name":"spillway"},"spans":[)";
  for (size_t i = 0; i < spans.size(); ++i) {
    if (i > 0) out += ',';
    append_span(out, spans[i]);
  }
  out += "]}]}]}";
  return out;
}

Result<std::unique_ptr<SpanExporter>> SpanExporter::start(SpanExporterOptions options) {
  std::unique_ptr<SpanExporter> exporter(new SpanExporter(std::move(options)));
  const SpanExporterOptions& given = exporter->options_;
  if (given.spool) {
    SW_ASSIGN(exporter->spool_, Spool::open(*given.spool, {kOutletName}));
    OutletOptions outlet;
    outlet.name = kOutletName;
    outlet.form = OutletOptions::Form::kSpans;
    outlet.url = given.url;
    outlet.headers = given.headers;
    outlet.client = given.client;
    outlet.points_per_s_max = given.spans_per_s_max;
    exporter->outlet_ = std::make_unique<Outlet>(std::move(outlet), *exporter->spool_);
  }
  exporter->thread_ = std::thread([raw = exporter.get()] { raw->run(); });
  return exporter;
}

SpanExporter::~SpanExporter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
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
      last =
          changed_.wait_for(lock, spool_ ? options_.spool_interval : options_.interval, [this] { return stopping_; });
      taken.swap(waiting_);
    }
    for (size_t at = 0; at < taken.size(); at += options_.batch_max) {
      const size_t end = std::min(taken.size(), at + options_.batch_max);
      const std::vector<RequestRecord> batch(taken.begin() + ptrdiff_t(at), taken.begin() + ptrdiff_t(end));
      if (spool_ == nullptr) {
        send(batch);
      } else if (!store(batch)) {
        put_back({taken.begin() + ptrdiff_t(at), taken.end()});
        break;
      }
    }
    if (spool_) publish(*spool_, "spans");
    if (outlet_ && !taken.empty()) outlet_->wake();
  }
}

bool SpanExporter::store(const std::vector<RequestRecord>& spans) {
  const int64_t time_ms = spans.front().started_unix_ns / 1'000'000;
  const Status stored = spool_->append(encode(SpanRecord{time_ms, spans.size(), otlp_json(spans, options_)}));
  if (stored.ok()) {
    spans_total.with({"spooled"}).add(double(spans.size()));
    if (std::exchange(disk_failed_, false)) SW_WARN("telemetry otlp: the disk takes spans again");
    return true;
  }
  if (!std::exchange(disk_failed_, true)) {
    SW_WARN("telemetry otlp: {}; up to {} spans wait in memory", stored.error().message, options_.waiting_max);
  }
  return false;
}

// The oldest wait longest, so they are kept; what does not fit behind them is dropped.
void SpanExporter::put_back(std::vector<RequestRecord> spans) {
  size_t dropped = 0;
  {
    std::lock_guard lock(mutex_);
    spans.insert(spans.end(), std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.end()));
    if (spans.size() > options_.waiting_max) dropped = spans.size() - options_.waiting_max;
    spans.resize(spans.size() - dropped);
    waiting_ = std::move(spans);
  }
  if (dropped > 0) spans_total.with({"dropped"}).add(double(dropped));
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
