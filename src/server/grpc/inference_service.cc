// The short calls: health, metadata, configuration, statistics, repository. Inference is in infer_call.cc and
// infer_stream.cc.
#include "server/grpc/inference_service.h"

#include <boost/asio/post.hpp>
#include <functional>

#include "server/grpc/infer_call.h"
#include "server/grpc/infer_stream.h"
#include "server/kserve/tensors.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;
using engine::OneShotStatistics;
using Context = InferenceService::Context;
using Reactor = InferenceService::Reactor;

Reactor* finish(Context* context, const char* method, const grpc::Status& status) {
  count_call(method, status, std::chrono::steady_clock::now());
  Reactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

// Runs work after the key was found right.
template <class Work>
Reactor* answer(RpcShared& shared, Context* context, const char* method, Work work) {
  if (const auto wrong = check_key(shared.server, *context)) return finish(context, method, wrong->status);
  return finish(context, method, work());
}

// Without a key, where health is open.
template <class Work>
Reactor* health(RpcShared& shared, Context* context, const char* method, Work work) {
  if (!shared.server.options().open_health) {
    if (const auto wrong = check_key(shared.server, *context)) return finish(context, method, wrong->status);
  }
  work();
  return finish(context, method, grpc::Status::OK);
}

// Runs work with the ready model of that name.
template <class Work>
Reactor* with_model(RpcShared& shared, Context* context, const char* method, const std::string& name,
                    const std::string& version, Work work) {
  return answer(shared, context, method, [&]() -> grpc::Status {
    const OneShotPtr model = shared.server.catalogue()->find(name, version);
    if (!model) return status_of(unknown_model(shared.server, name, version));
    work(*model);
    return grpc::Status::OK;
  });
}

template <class Tensors>
void add_metadata(const std::vector<TensorSpec>& specs, Tensors* out) {
  for (const TensorSpec& spec : specs) {
    auto* tensor = out->Add();
    tensor->set_name(spec.name);
    tensor->set_datatype(std::string(api::datatype_name(spec.datatype)));
    tensor->add_shape(-1);
    tensor->mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
  }
}

inference::DataType data_type(api::Datatype type) {
  return type == api::Datatype::kBytes   ? inference::TYPE_STRING
         : type == api::Datatype::kInt64 ? inference::TYPE_INT64
                                         : inference::TYPE_FP32;
}

void fill(const OneShotStatistics::Sum& sum, inference::StatisticDuration* out) {
  out->set_count(sum.count);
  out->set_ns(static_cast<uint64_t>(sum.seconds * 1e9));
}

void fill(const ServedOneShot& model, inference::ModelStatistics* out) {
  const OneShotStatistics all = model.engine().statistics();
  out->set_name(model.name());
  out->set_version(model.version());
  out->set_last_inference(static_cast<uint64_t>(all.last_inference_ms));
  out->set_inference_count(all.inputs);
  out->set_execution_count(all.batches);
  auto* stats = out->mutable_inference_stats();
  fill(all.success, stats->mutable_success());
  fill(all.failure, stats->mutable_fail());
  fill(all.queue, stats->mutable_queue());
  // Input and output happen inside compute_infer; perf_analyzer wants every stage counted as often.
  stats->mutable_compute_input()->set_count(all.compute.count);
  fill(all.compute, stats->mutable_compute_infer());
  stats->mutable_compute_output()->set_count(all.compute.count);
  for (const auto& [size, compute] : all.compute_by_size) {
    auto* batch = out->add_batch_stats();
    batch->set_batch_size(static_cast<uint64_t>(size));
    batch->mutable_compute_input()->set_count(compute.count);
    fill(compute, batch->mutable_compute_infer());
    batch->mutable_compute_output()->set_count(compute.count);
  }
}

// Loading and unloading block, so they happen apart.
Reactor* change(RpcShared& shared, Context* context, const char* method, const std::string& name, bool load) {
  if (const auto wrong = check_key(shared.server, *context)) return finish(context, method, wrong->status);
  Reactor* reactor = context->DefaultReactor();
  auto catalogue = shared.server.catalogue();
  const TimePoint begun = std::chrono::steady_clock::now();
  boost::asio::post(shared.apart, [reactor, catalogue, name, load, method, begun] {
    const Status done = load ? catalogue->load(name) : catalogue->unload(name);
    const grpc::Status status = done.ok() ? grpc::Status::OK : status_of(api::to_api_error(done.error()));
    count_call(method, status, begun);
    reactor->Finish(status);
  });
  return reactor;
}

}  // namespace

Reactor* InferenceService::ServerLive(Context* context, const inference::ServerLiveRequest*,
                                      inference::ServerLiveResponse* response) {
  return health(shared_, context, "ServerLive", [&] { response->set_live(true); });
}

Reactor* InferenceService::ServerReady(Context* context, const inference::ServerReadyRequest*,
                                       inference::ServerReadyResponse* response) {
  return health(shared_, context, "ServerReady", [&] { response->set_ready(shared_.server.ready()); });
}

Reactor* InferenceService::ModelReady(Context* context, const inference::ModelReadyRequest* request,
                                      inference::ModelReadyResponse* response) {
  return answer(shared_, context, "ModelReady", [&]() -> grpc::Status {
    const auto catalogue = shared_.server.catalogue();
    response->set_ready(catalogue->is_ready(request->name(), request->version()));
    if (response->ready() || catalogue->contains(request->name())) return grpc::Status::OK;
    return status_of(unknown_model(shared_.server, request->name(), request->version()));
  });
}

Reactor* InferenceService::ServerMetadata(Context* context, const inference::ServerMetadataRequest*,
                                          inference::ServerMetadataResponse* response) {
  return answer(shared_, context, "ServerMetadata", [&] {
    response->set_name(kServerName);
    response->set_version(kServerVersion);
    for (const std::string& each : server_extensions()) response->add_extensions(each);
    return grpc::Status::OK;
  });
}

Reactor* InferenceService::ModelMetadata(Context* context, const inference::ModelMetadataRequest* request,
                                         inference::ModelMetadataResponse* response) {
  const auto work = [&](const ServedOneShot& model) {
    const ModelTensors tensors = tensors_of(model);
    response->set_name(model.name());
    response->add_versions(model.version());
    response->set_platform(platform_of(model));
    add_metadata(tensors.inputs, response->mutable_inputs());
    add_metadata(tensors.outputs, response->mutable_outputs());
  };
  return with_model(shared_, context, "ModelMetadata", request->name(), request->version(), work);
}

Reactor* InferenceService::ModelConfig(Context* context, const inference::ModelConfigRequest* request,
                                       inference::ModelConfigResponse* response) {
  const auto work = [&](const ServedOneShot& model) {
    const ModelTensors tensors = tensors_of(model);
    auto* config = response->mutable_config();
    config->set_name(model.name());
    config->set_platform(platform_of(model));
    config->set_backend(kServerName);
    config->set_max_batch_size(model.engine().model().batch_inputs_max());
    for (const TensorSpec& spec : tensors.inputs) {
      auto* input = config->add_input();
      input->set_name(spec.name);
      input->set_data_type(data_type(spec.datatype));
      input->mutable_dims()->Add(spec.shape.begin(), spec.shape.end());
      input->set_optional(spec.optional);
    }
    for (const TensorSpec& spec : tensors.outputs) {
      auto* output = config->add_output();
      output->set_name(spec.name);
      output->set_data_type(data_type(spec.datatype));
      output->mutable_dims()->Add(spec.shape.begin(), spec.shape.end());
    }
    config->mutable_dynamic_batching()->set_priority_levels(3);
    config->mutable_dynamic_batching()->set_default_priority_level(2);
    config->mutable_model_transaction_policy()->set_decoupled(false);
  };
  return with_model(shared_, context, "ModelConfig", request->name(), request->version(), work);
}

Reactor* InferenceService::ModelStatistics(Context* context, const inference::ModelStatisticsRequest* request,
                                           inference::ModelStatisticsResponse* response) {
  if (!request->name().empty()) {
    const auto work = [&](const ServedOneShot& model) { fill(model, response->add_model_stats()); };
    return with_model(shared_, context, "ModelStatistics", request->name(), request->version(), work);
  }
  return answer(shared_, context, "ModelStatistics", [&] {
    for (const OneShotPtr& model : shared_.server.catalogue()->ready()) fill(*model, response->add_model_stats());
    return grpc::Status::OK;
  });
}

Reactor* InferenceService::RepositoryIndex(Context* context, const inference::RepositoryIndexRequest* request,
                                           inference::RepositoryIndexResponse* response) {
  return answer(shared_, context, "RepositoryIndex", [&] {
    for (const CatalogueEntry& entry : shared_.server.catalogue()->index()) {
      if (request->ready() && entry.state != "READY") continue;
      auto* model = response->add_models();
      model->set_name(entry.name);
      model->set_version(entry.version);
      model->set_state(entry.state);
      model->set_reason(entry.reason);
    }
    return grpc::Status::OK;
  });
}

Reactor* InferenceService::RepositoryModelLoad(Context* context, const inference::RepositoryModelLoadRequest* request,
                                               inference::RepositoryModelLoadResponse*) {
  if (!request->parameters().empty()) {
    const auto refuse = [&] {
      return grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                          loads_without_parameters(request->parameters().begin()->first));
    };
    return answer(shared_, context, "RepositoryModelLoad", refuse);
  }
  return change(shared_, context, "RepositoryModelLoad", request->model_name(), true);
}

Reactor* InferenceService::RepositoryModelUnload(Context* context,
                                                 const inference::RepositoryModelUnloadRequest* request,
                                                 inference::RepositoryModelUnloadResponse*) {
  return change(shared_, context, "RepositoryModelUnload", request->model_name(), false);
}

// Nothing can be registered, so there is nothing to tell and nothing to take back. Triton's clients ask at their start.
Reactor* InferenceService::SystemSharedMemoryStatus(Context* context, const inference::SystemSharedMemoryStatusRequest*,
                                                    inference::SystemSharedMemoryStatusResponse*) {
  return answer(shared_, context, "SystemSharedMemoryStatus", [] { return grpc::Status::OK; });
}

Reactor* InferenceService::SystemSharedMemoryUnregister(Context* context,
                                                        const inference::SystemSharedMemoryUnregisterRequest*,
                                                        inference::SystemSharedMemoryUnregisterResponse*) {
  return answer(shared_, context, "SystemSharedMemoryUnregister", [] { return grpc::Status::OK; });
}

Reactor* InferenceService::CudaSharedMemoryStatus(Context* context, const inference::CudaSharedMemoryStatusRequest*,
                                                  inference::CudaSharedMemoryStatusResponse*) {
  return answer(shared_, context, "CudaSharedMemoryStatus", [] { return grpc::Status::OK; });
}

Reactor* InferenceService::CudaSharedMemoryUnregister(Context* context,
                                                      const inference::CudaSharedMemoryUnregisterRequest*,
                                                      inference::CudaSharedMemoryUnregisterResponse*) {
  return answer(shared_, context, "CudaSharedMemoryUnregister", [] { return grpc::Status::OK; });
}

Reactor* InferenceService::ModelInfer(Context* context, const inference::ModelInferRequest* request,
                                      inference::ModelInferResponse* response) {
  return start_infer(shared_, context, request, response);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
InferenceService::ModelStreamInfer(Context* context) {
  return start_infer_stream(shared_, context);
}

}  // namespace spillway::server
