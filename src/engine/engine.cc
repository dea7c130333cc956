#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/log.h"
#include "base/trace.h"
#include "engine/core.h"
#include "engine/intake.h"
#include "engine/memory.h"
#include "engine/runner.h"
#include "engine/tuning_file.h"
#include "tensor/cuda/cuda.h"

namespace spillway::engine {
namespace {

const SteadyClock kClock;

// The engine in service: the core on a thread of its own, the intake in front.
class ServingEngine final : public Engine {
 public:
  ServingEngine(const EngineOptions& options, const Limits& limits, std::unique_ptr<Runner> runner)
      : runner_(std::move(runner)), intake_(options, limits, kClock), core_(options, limits, *runner_, kClock) {
    core_.set_on_end([this](RequestId id) { intake_.forget(id); });
    intake_.publish(core_);
    thread_ = std::thread([this] { run(); });
  }

  ~ServingEngine() override {
    intake_.stop();
    thread_.join();
  }

  std::optional<Refusal> submit(std::unique_ptr<Request> request, std::shared_ptr<EventSink> sink) override {
    return intake_.submit(std::move(request), std::move(sink));
  }
  void cancel(RequestId id) override { intake_.cancel(id); }
  void set_queue_bounds(const QueueBounds& bounds) override { intake_.set_queue_bounds(bounds); }
  EngineState state() const override { return intake_.state(); }
  std::shared_ptr<const LiveView> live_view() override { return intake_.live_view(); }
  const models::LanguageModel& model() const override { return runner_->model(); }
  bool drain(TimePoint deadline) override { return intake_.drain(deadline); }

 private:
  void run() {
    trace::name_thread("engine");
    for (bool stopped = false; !stopped || !core_.idle();) {
      auto taken = intake_.take(!stopped && core_.idle());
      for (auto& sequence : taken.sequences) core_.submit(std::move(sequence));
      for (const RequestId id : taken.cancelled) core_.cancel(id);
      stopped = taken.stopped;
      if (stopped) core_.cancel_all();
      core_.step();
      intake_.publish(core_);
    }
    const Status pages = core_.check();
    SW_CHECK(pages.ok(), pages.error().message);
  }

  std::unique_ptr<Runner> runner_;
  Intake intake_;
  Core core_;
  std::thread thread_;
};

// Everything that a step on the device may allocate, compile or record, before the first request.
Status warm_up(Runner& runner, const EngineOptions& options) {
  const TimePoint begin = kClock.now();
  try {
    runner.warm_up(options.sequences_max);
  } catch (const std::exception& error) {
    return Error{ErrorCode::kResourceExhausted, std::string("warming up: ") + error.what()};
  }
  SW_INFO("steps of up to {} sequences warmed up and recorded in {:.2f} s", options.sequences_max,
          seconds(kClock.now() - begin));
  return {};
}

TuningFile tuning_file(const models::ModelInfo& info, const EngineOptions& options) {
  if (options.device.kind == tensor::DeviceKind::kCpu) return {"", "", ""};
  const tensor::cuda::DeviceInfo& device = tensor::cuda::device_info(options.device.index);
  const std::string model = fmt::format("{} {} {} of {} parameters in {} bytes", device.name, info.architecture,
                                        info.precision, info.parameters, info.weight_bytes);
  return {options.tuning_folder, model,
          fmt::format("{}; driver {}, runtime {}; {}", model, device.driver, device.runtime, build_identity())};
}

Status check_options(const EngineOptions& options, const models::ModelInfo& info) {
  const auto positive = [](const char* name, int64_t value) -> Status {
    if (value > 0) return {};
    return invalid(fmt::format("{}: expected at least 1, found {}", name, value));
  };
  if (options.page_tokens < 16 || options.page_tokens % 16 != 0) {
    return invalid(fmt::format("page_tokens: expected a multiple of 16, found {}", options.page_tokens));
  }
  SW_TRY(positive("sequences_max", options.sequences_max));
  SW_TRY(positive("batch_tokens_max", options.batch_tokens_max));
  SW_TRY(positive("queue_requests_max", options.queue_requests_max));
  if (options.kv_cache_bytes < 0)
    return invalid(fmt::format("kv_cache_bytes: expected at least 0, found {}", options.kv_cache_bytes));
  if (options.vocab_limit < 0 || options.vocab_limit > info.vocab_size) {
    return invalid(fmt::format("vocab_limit: expected 0 to {}, found {}", info.vocab_size, options.vocab_limit));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::start(std::unique_ptr<models::LanguageModel> model, EngineOptions options) {
  const models::ModelInfo& info = model->info();
  SW_TRY(check_options(options, info));
  const int64_t pages = std::min<int64_t>(choose_pages(info, options, memory_available_bytes()), INT32_MAX);
  if (pages < 2) {
    return invalid(fmt::format("kv_cache_bytes: expected room for at least two pages of {} bytes, found {}",
                               info.kv.bytes_per_page(options.page_tokens), options.kv_cache_bytes));
  }
  Limits limits;
  limits.context_tokens = static_cast<int>(std::min<int64_t>(info.context_tokens_max, pages * options.page_tokens));
  limits.batch_tokens = std::min(options.batch_tokens_max, model->batch_tokens_max());
  limits.vocab = options.vocab_limit > 0 ? options.vocab_limit : info.vocab_size;
  if (limits.context_tokens < info.context_tokens_max) {
    SW_WARN("the KV cache holds {} tokens: contexts are cut to that, from {}", limits.context_tokens,
            info.context_tokens_max);
  }
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(options.device, options.threads));
  stream.set_batch_invariant(options.deterministic);
  SW_ASSIGN(nn::KvStorage storage,
            nn::KvStorage::create(info.kv, options.page_tokens, static_cast<int>(pages), options.device));
  if (options.kv_populate && options.device.kind == tensor::DeviceKind::kCpu) {
    SW_TRY(make_resident(storage.layer_base(0), storage.bytes()));
  }
  SW_INFO("KV cache on {}: {} pages of {} tokens, {:.2f} GiB; {} threads, {} rows a step", to_string(options.device),
          pages, options.page_tokens, static_cast<double>(storage.bytes()) / (1 << 30), stream.threads(),
          limits.batch_tokens);
  const TuningFile tuned = tuning_file(info, options);
  kernels::tune({.measure = options.autotune, .known = tuned.read()}, stream);
  auto runner = std::make_unique<Runner>(std::move(model), std::move(storage), std::move(stream));
  if (runner->draws_tokens()) SW_TRY(warm_up(*runner, options));
  if (options.autotune) tuned.write(runner->learned());
  return std::unique_ptr<Engine>(std::make_unique<ServingEngine>(options, limits, std::move(runner)));
}

const char* name_of(Refusal::Reason reason) {
  switch (reason) {
    case Refusal::Reason::kQueueRequests:
      return "queue_requests";
    case Refusal::Reason::kQueueTokens:
      return "queue_tokens";
    case Refusal::Reason::kPredictedWait:
      return "predicted_wait";
    case Refusal::Reason::kDeadline:
      return "deadline";
    case Refusal::Reason::kDraining:
      return "draining";
    case Refusal::Reason::kStalled:
      return "stalled";
    case Refusal::Reason::kTooLong:
      return "too_long";
    case Refusal::Reason::kInvalid:
      return "invalid";
  }
  return "unknown";
}

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kFailed:
      return "failed";
  }
  return "unknown";
}

}  // namespace spillway::engine
