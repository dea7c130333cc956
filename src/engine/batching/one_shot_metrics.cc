#include "engine/batching/one_shot_metrics.h"

#include "metrics/metrics.h"

namespace spillway::engine {
namespace {

using metrics::Counter;
using metrics::Gauge;
using metrics::Histogram;

const std::vector<double> kLatency_s = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                        0.25,   0.5,   1,      2.5,   5,    10,    30};
const std::vector<double> kSizes = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
const std::vector<double> kShares = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1};

Counter inputs_total("spillway_batcher_inputs_total", "Inputs of one-shot models that ended, by outcome.",
                     {"model", "outcome"});
Counter refusals("spillway_batcher_refusals_total", "Inputs refused at admission, by reason.", {"model", "reason"});
Counter decisions("spillway_batcher_decisions_total", "What the batch scheduler decided, by reason.",
                  {"model", "reason"});
Counter limit_moves("spillway_batcher_limit_moves_total", "Times that the cap or the delay has moved.", {"model"});
Counter cost_total("spillway_batcher_cost_total", "Tokens (images) computed.", {"model"});
Counter padding_saved("spillway_batcher_padding_saved_total",
                      "Tokens not computed that batches padded to their longest input would have had.", {"model"});
Gauge cap("spillway_batcher_cap", "Most tokens (images) in one batch at present.", {"model"});
Gauge delay_s("spillway_batcher_delay_seconds", "How long a batch is held back for more to come at present.",
              {"model"});
Gauge waiting("spillway_batcher_waiting", "Inputs that wait for a batch.", {"model"});
Histogram fill("spillway_batcher_fill", "Share of the cap that a batch used.", kShares, {"model"});
Histogram batch_inputs("spillway_batcher_batch_inputs", "Inputs in a batch.", kSizes, {"model"});
Histogram queue_s("spillway_batcher_queue_seconds", "From submission to the batch.", kLatency_s, {"model"});
Histogram compute_s("spillway_batcher_compute_seconds", "Duration of a batch.", kLatency_s, {"model"});
Histogram request_s("spillway_batcher_request_seconds", "From submission to the end.", kLatency_s, {"model"});

}  // namespace

const char* name_of(OneShotAnswer::Outcome outcome) {
  switch (outcome) {
    case OneShotAnswer::Outcome::kDone:
      return "done";
    case OneShotAnswer::Outcome::kDeadline:
      return "deadline";
    case OneShotAnswer::Outcome::kCancelled:
      return "cancelled";
    case OneShotAnswer::Outcome::kFailed:
      return "failed";
  }
  return "unknown";
}

void record_one_shot_refusal(const std::string& model, Refusal::Reason reason) {
  refusals.with({model, name_of(reason)}).add();
}

void record_one_shot_end(const std::string& model, const OneShotAnswer& answer, double total_s,
                         std::string_view trace_id) {
  inputs_total.with({model, name_of(answer.outcome)}).add();
  request_s.with({model}).observe(total_s, trace_id);
  if (answer.outcome == OneShotAnswer::Outcome::kDone) queue_s.with({model}).observe(answer.queue_s, trace_id);
}

void record_one_shot_decision(const std::string& model, const BatchDecision& decision) {
  if (decision.reason != BatchReason::kIdle) decisions.with({model, name_of(decision.reason)}).add();
}

void record_one_shot_batch(const std::string& model, const BatchRecord& batch, const BatchScheduler& scheduler) {
  const auto cost = static_cast<double>(batch.cost);
  cost_total.with({model}).add(cost);
  padding_saved.with({model}).add(static_cast<double>(batch.longest) * batch.inputs - cost);
  fill.with({model}).observe(cost / static_cast<double>(scheduler.limits().cap()));
  batch_inputs.with({model}).observe(batch.inputs);
  compute_s.with({model}).observe(batch.latency_s);
  cap.with({model}).set(static_cast<double>(scheduler.limits().cap()));
  delay_s.with({model}).set(scheduler.limits().delay_s());
  waiting.with({model}).set(scheduler.line().size());
  const auto moves = static_cast<double>(scheduler.limits().moves());
  auto& moved = limit_moves.with({model});
  moved.add(moves - moved.get());
}

}  // namespace spillway::engine
