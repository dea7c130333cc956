// The metrics of one-shot engines, by model, recorded where things happen.
#pragma once

#include <string>

#include "engine/batching/batch_scheduler.h"
#include "engine/one_shot_engine.h"

namespace spillway::engine {

const char* name_of(OneShotAnswer::Outcome outcome);

void record_one_shot_refusal(const std::string& model, Refusal::Reason reason);
void record_one_shot_end(const std::string& model, const OneShotAnswer& answer, double total_s,
                         std::string_view trace_id);
void record_one_shot_decision(const std::string& model, const BatchDecision& decision);

struct BatchRecord {
  int inputs = 0;
  int64_t cost = 0;
  int64_t longest = 0;  // cost of the most expensive input
  double latency_s = 0;
};
void record_one_shot_batch(const std::string& model, const BatchRecord& batch, const BatchScheduler& scheduler);

}  // namespace spillway::engine
