#include "server/console/state_json.h"

#include <algorithm>

#include "engine/live_view.h"

namespace spillway::server {
namespace {

namespace json = boost::json;

json::object stream_json(const engine::LiveStream& stream) {
  return {{"id", stream.id},
          {"name", stream.name},
          {"phase", name_of(stream.phase)},
          {"priority", static_cast<int>(stream.priority)},
          {"prompt", stream.prompt_tokens},
          {"cached", stream.cached_tokens},
          {"computed", stream.computed_tokens},
          {"generated", stream.generated_tokens},
          {"max", stream.max_tokens},
          {"pages", stream.pages},
          {"preemptions", stream.preemptions},
          {"age_s", stream.age_s},
          {"wait_s", stream.predicted_wait_s}};
}

json::object prefixes_json(const kv::PrefixSummary& summary) {
  json::array largest;
  for (const auto& root : summary.largest) {
    largest.push_back(
        json::object{{"pages", root.pages}, {"idle", root.idle}, {"leaves", root.leaves}, {"depth", root.depth}});
  }
  return {{"pages", summary.pages},       {"idle", summary.idle},   {"roots", summary.roots},
          {"leaves", summary.leaves},     {"forks", summary.forks}, {"depth", summary.depth_max},
          {"largest", std::move(largest)}};
}

json::object view_json(const engine::LiveView& view) {
  json::array streams;
  for (const auto& stream : view.streams) streams.push_back(stream_json(stream));
  std::string map;  // one digit a page or group of pages: free, cached, used, shared
  for (const uint8_t cell : view.page_map) map += static_cast<char>('0' + cell);
  return {{"steps", view.steps},
          {"running", view.running},
          {"decoding", view.decoding},
          {"waiting", view.waiting},
          {"blocked", view.blocked},
          {"streams", std::move(streams)},
          {"step",
           {{"decode_rows", view.last.decode_rows},
            {"prefill_tokens", view.last.prefill_tokens},
            {"sequences", view.last.sequences},
            {"draft_rows", view.last.draft_rows},
            {"seconds", view.last.step_s},
            {"seconds_mean", view.step_s_mean},
            {"rows_mean", view.rows_mean}}},
          {"cost", {{"base_s", view.cost.base_s}, {"row_s", view.cost.row_s}, {"token_s", view.cost.token_s}}},
          {"batch_tokens_max", view.batch_tokens_max},
          {"sequences_max", view.sequences_max},
          {"pages",
           {{"tokens", view.page_tokens},
            {"total", view.pages_total},
            {"free", view.pages_free},
            {"cached", view.pages_cached},
            {"shared", view.pages_shared},
            {"map", std::move(map)}}},
          {"prefixes", prefixes_json(view.prefixes)}};
}

const char* name_of(Verdict::Severity severity) {
  switch (severity) {
    case Verdict::Severity::kGood:
      return "good";
    case Verdict::Severity::kBusy:
      return "busy";
    case Verdict::Severity::kBad:
      break;
  }
  return "bad";
}

// What the console's lists need of a request's moments, in one pass.
struct Passage {
  TimePoint begun, started, first, last_token, finished, answered, attempt;
  int64_t tokens = 0;
  int64_t prompt = 0;
  int64_t status = 0;
  int attempts = 0;
  std::string_view outcome, upstream;
};

Passage read_moments(const metrics::Timeline& timeline, const metrics::Timeline::Snapshot& snapshot) {
  using Kind = metrics::Moment::Kind;
  const TimePoint none{};
  Passage out;
  out.begun = timeline.received();
  for (const metrics::Moment& moment : snapshot.moments) {
    switch (moment.kind) {
      case Kind::kQueued:
        out.prompt = moment.a;
        out.begun = moment.at;
        break;
      case Kind::kStarted:
        if (out.started == none) out.started = moment.at;
        break;
      case Kind::kTokens:
        if (out.first == none) out.first = moment.at;
        out.last_token = moment.at;
        out.tokens = moment.a;
        break;
      case Kind::kFinished:
        out.finished = moment.at;
        out.tokens = std::max(out.tokens, moment.a);
        break;
      case Kind::kAttempt:
        if (out.attempt == none) out.attempt = moment.at;
        ++out.attempts;
        out.upstream = moment.note;
        break;
      case Kind::kAnswered:
        out.answered = moment.at;
        out.status = moment.a;
        out.outcome = moment.note;
        break;
      default:
        break;
    }
  }
  return out;
}

double span(TimePoint from, TimePoint to) { return from == TimePoint{} || to <= from ? 0 : seconds(to - from); }

}  // namespace

json::object model_json(const ServedModel& model) {
  const engine::EngineState state = model.engine().state();
  json::object out{{"name", model.name()},
                   {"context_tokens_max", model.context_tokens_max()},
                   {"running", state.running},
                   {"waiting", state.waiting},
                   {"waiting_tokens", state.waiting_tokens},
                   {"predicted_wait_s", state.predicted_wait_s},
                   {"tokens_per_s", state.tokens_per_s},
                   {"pages_total", state.pages_total},
                   {"pages_free", state.pages_free},
                   {"pages_cached", state.pages_cached},
                   {"draft_acceptance", state.draft_acceptance},
                   {"seconds_since_progress", state.seconds_since_progress},
                   {"stalled", state.stalled}};
  if (const auto view = model.engine().live_view()) out["engine"] = view_json(*view);
  return out;
}

json::object one_shot_json(const ServedOneShot& model) {
  const engine::OneShotState state = model.engine().state();
  const engine::OneShotStatistics totals = model.engine().statistics();
  const auto mean = [](const engine::OneShotStatistics::Sum& sum) {
    return sum.count == 0 ? 0 : sum.seconds / double(sum.count);
  };
  return {{"name", model.name()},
          {"waiting", state.waiting},
          {"busy", state.busy},
          {"stalled", state.stalled},
          {"predicted_wait_s", state.predicted_wait_s},
          {"inputs", totals.inputs},
          {"batches", totals.batches},
          {"failed", totals.failure.count},
          {"queue_s_mean", mean(totals.queue)},
          {"compute_s_mean", mean(totals.compute)}};
}

json::object upstream_json(const UpstreamView& upstream) {
  json::object out{{"name", upstream.name},
                   {"kind", upstream.kind},
                   {"tier", upstream.tier},
                   {"health", upstream.health},
                   {"share", upstream.share},
                   {"opens_in_s", upstream.opens_in_s},
                   {"in_flight", upstream.in_flight},
                   {"concurrency_max", upstream.concurrency_max},
                   {"prefill_tokens_per_s", upstream.prefill_tokens_per_s},
                   {"decode_tokens_per_s", upstream.decode_tokens_per_s},
                   {"first_token_p50_s", upstream.first_token_p50_s},
                   {"first_token_p99_s", upstream.first_token_p99_s},
                   {"price_input", upstream.price_input},
                   {"price_output", upstream.price_output},
                   {"models", json::array(upstream.models.begin(), upstream.models.end())}};
  if (const auto& report = upstream.report) {
    out["report"] = {{"age_s", report->age_s},
                     {"running", report->running},
                     {"waiting", report->waiting},
                     {"predicted_wait_s", report->predicted_wait_s},
                     {"memory_used", report->memory_used}};
  }
  return out;
}

json::object verdict_json(const Verdict& verdict, const Signals& s) {
  return {{"resource", verdict.resource},
          {"severity", name_of(verdict.severity)},
          {"efficiency", verdict.efficiency},
          {"memory_floor_s", verdict.memory_floor_s},
          {"compute_floor_s", verdict.compute_floor_s},
          {"step_s", s.step_s},
          {"step_bytes", s.step_bytes},
          {"step_flops", s.step_flops},
          {"bandwidth", s.bandwidth},
          {"flops_peak", s.flops_peak},
          {"slots_used", s.slots_used},
          {"pages_used", s.pages_used},
          {"predicted_wait_s", s.predicted_wait_s},
          {"waiting", s.waiting},
          {"cpu_of_others", s.cpu_of_others},
          {"error_share", s.error_share},
          {"upstreams_down", s.upstreams_down},
          {"shares",
           {{"queue", s.time.queue},
            {"prefill", s.time.prefill},
            {"decode", s.time.decode},
            {"upstream", s.time.upstream},
            {"other", s.time.other},
            {"requests", s.time.requests}}}};
}

json::array column_json(const LatencyMap::Column& column) {
  json::array out;
  for (const uint32_t n : column) out.push_back(n);
  return out;
}

json::object request_line(const metrics::Timeline& timeline, TimePoint now) {
  const auto snapshot = timeline.snapshot();
  const Passage passage = read_moments(timeline, snapshot);
  const TimePoint end = snapshot.ended ? passage.answered : now;
  return {{"id", timeline.id()},
          {"route", timeline.route()},
          {"model", snapshot.model},
          {"age_s", seconds(now - timeline.received())},
          {"total_s", seconds(end - timeline.received())},
          {"first_s", span(timeline.received(), passage.first)},
          {"queue_s", span(passage.begun, passage.started)},
          {"prompt", passage.prompt},
          {"tokens", passage.tokens},
          {"attempts", passage.attempts},
          {"upstream", passage.upstream},
          {"ended", snapshot.ended},
          {"status", passage.status},
          {"outcome", passage.outcome}};
}

json::object request_json(const metrics::Timeline& timeline, TimePoint now) {
  json::object out = request_line(timeline, now);
  const auto snapshot = timeline.snapshot();
  out["answer_id"] = snapshot.answer_id;
  out["dropped"] = snapshot.dropped;
  json::array moments;
  for (const metrics::Moment& moment : snapshot.moments) {
    json::object item{{"at_s", seconds(moment.at - timeline.received())}, {"kind", metrics::name_of(moment.kind)}};
    if (moment.a != 0) item["a"] = moment.a;
    if (moment.b != 0) item["b"] = moment.b;
    if (!moment.note.empty()) item["note"] = moment.note;
    moments.push_back(std::move(item));
  }
  out["moments"] = std::move(moments);
  return out;
}

TimeShares time_shares(const std::vector<std::shared_ptr<metrics::Timeline>>& requests, TimePoint since) {
  TimeShares sum;
  for (const auto& timeline : requests) {
    const auto snapshot = timeline->snapshot();
    const Passage passage = read_moments(*timeline, snapshot);
    if (!snapshot.ended || passage.answered < since) continue;
    const double total = span(timeline->received(), passage.answered);
    double queue = 0, prefill = 0, decode = 0, upstream = 0;
    if (passage.started != TimePoint{}) {
      queue = span(passage.begun, passage.started);
      prefill = span(passage.started, passage.first == TimePoint{} ? passage.finished : passage.first);
      decode = span(passage.first, passage.last_token);
    } else if (passage.attempts > 0) {
      upstream = span(passage.attempt, passage.answered);
    }
    sum.queue += queue;
    sum.prefill += prefill;
    sum.decode += decode;
    sum.upstream += upstream;
    sum.other += std::max(0.0, total - queue - prefill - decode - upstream);
    ++sum.requests;
  }
  const double all = sum.queue + sum.prefill + sum.decode + sum.upstream + sum.other;
  if (all <= 0) return sum;
  for (double* part : {&sum.queue, &sum.prefill, &sum.decode, &sum.upstream, &sum.other}) *part /= all;
  return sum;
}

}  // namespace spillway::server
