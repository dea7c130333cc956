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

double gib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

// The engine in service: the core on a thread of its own, the intake in front.
class ServingEngine final : public Engine {
 public:
  // tuned: told at the end what the steps cost, and known: what it held at the start.
  ServingEngine(const EngineOptions& options, const Limits& limits, std::unique_ptr<Runner> runner, TuningFile tuned,
                const std::string& known)
      : runner_(std::move(runner)),
        tuned_(std::move(tuned)),
        intake_(options, limits, kClock),
        core_(options, limits, *runner_, kClock) {
    core_.remember(parse_step_cost(known));
    core_.set_on_end([this](RequestId id) { intake_.forget(id); });
    intake_.publish(core_);
    thread_ = std::thread([this] { run(); });
  }

  ~ServingEngine() override {
    intake_.stop();
    thread_.join();
    const CostModel& costs = core_.state().costs;
    if (costs.settled()) tuned_.write(runner_->learned() + to_text(costs.cost()));
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
  TuningFile tuned_;
  Intake intake_;
  Core core_;
  std::thread thread_;
};

// Pages of the cache where all but the cache is on the device: at most `wanted`, and what device_bytes_kept leaves.
Result<int64_t> pages_that_fit(int64_t page_bytes, int64_t wanted, const EngineOptions& options) {
  constexpr int64_t kDriver = int64_t{256} << 20;  // for code that the driver loads when it is first used
  const tensor::cuda::MemoryInfo memory = tensor::cuda::memory_info(options.device.index);
  const int64_t fits = (memory.free_bytes - options.device_bytes_kept - kDriver) / page_bytes - 1;  // padding
  if (fits >= 2) return std::min(wanted, fits);
  return Error{ErrorCode::kResourceExhausted,
               fmt::format("memory of {}: {:.2f} of {:.2f} GiB are free beside weights, workspaces and recorded steps, "
                           "which leaves no room for the cache where {:.2f} GiB are to stay free",
                           tensor::to_string(options.device), gib(memory.free_bytes), gib(memory.total_bytes),
                           gib(options.device_bytes_kept))};
}

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
          fmt::format("{}; driver {} {}, runtime {}; {}", model, device.driver, driver_identity(), device.runtime,
                      build_identity())};
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

Limits choose_limits(const Runner& runner, const EngineOptions& options) {
  const models::ModelInfo& info = runner.info();
  Limits limits;
  limits.context_tokens =
      static_cast<int>(std::min<int64_t>(info.context_tokens_max, int64_t{runner.pages()} * options.page_tokens));
  limits.batch_tokens = std::min(options.batch_tokens_max, runner.model().batch_tokens_max());
  limits.vocab = options.vocab_limit > 0 ? options.vocab_limit : info.vocab_size;
  if (limits.context_tokens < info.context_tokens_max) {
    SW_WARN("the KV cache holds {} tokens: contexts are cut to that, from {}", limits.context_tokens,
            info.context_tokens_max);
  }
  return limits;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::start(std::unique_ptr<models::LanguageModel> model, EngineOptions options) {
  const models::ModelInfo& info = model->info();
  SW_TRY(check_options(options, info));
  int64_t pages = std::min<int64_t>(choose_pages(info, options, memory_available_bytes()), INT32_MAX);
  if (pages < 2) {
    return invalid(fmt::format("kv_cache_bytes: expected room for at least two pages of {} bytes, found {}",
                               info.kv.bytes_per_page(options.page_tokens), options.kv_cache_bytes));
  }
  const bool measured_out = model->draws_tokens() && options.device_bytes_kept >= 0;
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(options.device, options.threads));
  stream.set_batch_invariant(options.deterministic);
  SW_ASSIGN(nn::KvStorage storage, nn::KvStorage::create(info.kv, options.page_tokens,
                                                         measured_out ? 1 : static_cast<int>(pages), options.device));
  if (options.kv_populate && options.device.kind == tensor::DeviceKind::kCpu) {
    SW_TRY(make_resident(storage.layer_base(0), storage.bytes()));
  }
  TuningFile tuned = tuning_file(info, options);
  const std::string known = tuned.read();
  kernels::tune({.measure = options.autotune, .known = known}, stream);
  auto runner = std::make_unique<Runner>(std::move(model), std::move(storage), std::move(stream));
  if (runner->draws_tokens()) SW_TRY(warm_up(*runner, options));
  if (measured_out) {
    SW_ASSIGN(pages, pages_that_fit(info.kv.bytes_per_page(options.page_tokens), pages, options));
    const TimePoint begin = kClock.now();
    SW_TRY(runner->replace_pages(static_cast<int>(pages), options.sequences_max));
    SW_INFO("steps recorded again over the cache's pages in {:.2f} s", seconds(kClock.now() - begin));
  }
  const Limits limits = choose_limits(*runner, options);
  SW_INFO("KV cache on {}: {} pages of {} tokens, {:.2f} GiB; {} threads, {} rows a step", to_string(options.device),
          pages, options.page_tokens, gib(pages * info.kv.bytes_per_page(options.page_tokens)), runner->threads(),
          limits.batch_tokens);
  if (const StepCost cost = parse_step_cost(known); options.autotune)
    tuned.write(runner->learned() + (cost.measured ? to_text(cost) : ""));
  return std::unique_ptr<Engine>(
      std::make_unique<ServingEngine>(options, limits, std::move(runner), std::move(tuned), known));
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
