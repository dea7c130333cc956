// An inference request of KServe's protocol as engine requests, and the engine's answers as its response. Pure
// functions, any thread; HTTP and gRPC share them. Not its job: running them.
#pragma once

#include <chrono>
#include <vector>

#include "api/kserve.h"
#include "server/one_shot/tasks.h"
#include "server/served_one_shot.h"

namespace spillway::server {

struct InferPlan {
  OneShotRequests requests;  // row by row for the first output, then for the next
  struct Output {
    models::OneShotOutput kind = models::OneShotOutput::kEmbedding;
    api::OutputAsked asked;
  };
  std::vector<Output> outputs;
  int64_t rows = 0;
  int64_t columns = 0;                      // of input_ids, or the longest text
  std::vector<std::vector<int>> positions;  // of each row's tokens in its columns; empty: from 0 on
  std::string id;
  bool has_batch = true;  // a single image or sequence came without the batch dimension
};

api::Parsed<InferPlan> plan_infer(const ServedOneShot& model, const api::InferRequest& request);

api::InferResponse finish_infer(const ServedOneShot& model, const InferPlan& plan, Vectors outputs);

// The protocol's timeout and priority on the requests; a deadline of the transport goes on top.
void apply_limits(const api::InferRequest& request, TimePoint deadline, OneShotRequests& out);

}  // namespace spillway::server
