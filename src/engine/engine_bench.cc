// What the engine costs and gains: host time of a step, continuous batching, draft acceptance, a soak.
//   engine_bench overhead|soak                 on a fake model
//   engine_bench batching|acceptance [FOLDER]  on a real one (models/tiny-r1)
//   engine_bench bubble [FOLDER] [PRECISION]   on the first GPU: how long it waits between decode steps
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <random>
#include <string>

#include "base/log.h"
#include "engine/core.h"
#include "engine/testing/collector.h"
#include "engine/testing/fake_model.h"
#include "engine/testing/host_drafts.h"
#include "engine/testing/test_evaluation.h"
#include "models/loader.h"

namespace spillway::engine {
namespace {

using testing::Evaluation;
using testing::FakeModel;
using testing::FakeOptions;
using testing::make_request;

const SteadyClock kClock;

double seconds_since(TimePoint begin) { return seconds(kClock.now() - begin); }

// Time that the processor spent on us, so that neighbours on a shared machine do not count.
double cpu_s(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}
double thread_cpu_s() { return cpu_s(CLOCK_THREAD_CPUTIME_ID); }

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// Counts events and keeps nothing.
class Counter final : public EventSink {
 public:
  void on_event(Event event) override { finished_ += event.finish != FinishReason::kNone; }
  std::atomic<int64_t> finished_{0};
};

// Host time of a decode step: the whole step less what the model took.
void overhead() {
  for (const int batch : {1, 8, 64, 256}) {
    double model_s = 0;
    FakeOptions fake{.vocab = 512, .context = 4096};
    class Timed final : public models::LanguageModel {
     public:
      Timed(FakeOptions options, double& total) : inner_(options), total_(total), row_(options.vocab) {}
      const models::ModelInfo& info() const override { return inner_.info(); }
      int batch_tokens_max() const override { return 512; }
      tensor::TensorView forward(std::span<const models::SequenceInput> batch, nn::KvStorage&,
                                 tensor::Stream&) override {
        const double begin = thread_cpu_s();
        int64_t rows = 0;
        for (const auto& slice : batch) rows += slice.logits_rows;
        row_.resize(rows * 512);
        const tensor::TensorView view{row_.data(), tensor::DType::kF32, {rows, 512}};
        total_ += thread_cpu_s() - begin;
        return view;
      }
      tensor::TensorView draft(std::span<const models::DraftInput>, nn::KvStorage&, tensor::Stream&) override {
        return {};
      }

     private:
      FakeModel inner_;
      double& total_;
      std::vector<float> row_;
    };
    auto model = std::make_unique<Timed>(fake, model_s);
    auto storage = std::move(nn::KvStorage::create(model->info().kv, 16, 256 * 260, {})).value();
    Runner runner(std::move(model), std::move(storage), tensor::Stream(1));
    EngineOptions options;
    Core core(options, {.context_tokens = 4096, .batch_tokens = 512, .prompt_logprob_rows = 64, .vocab = 512}, runner,
              kClock);
    auto sink = std::make_shared<Counter>();
    for (int i = 0; i < batch; ++i) {
      core.submit(std::make_unique<Sequence>(make_request(i, {i % 512, i / 512, 3}, 4000), sink, 16, kClock.now()));
    }
    for (int i = 0; i < 50; ++i) core.step();
    model_s = 0;
    constexpr int kSteps = 2000;
    const double begin = thread_cpu_s();
    for (int i = 0; i < kSteps; ++i) core.step();
    const double step_us = (thread_cpu_s() - begin - model_s) / kSteps * 1e6;
    SW_CHECK(core.state().record.emitted == batch, "the batch ended early");
    fmt::print("overhead  batch {:3}: {:7.2f} us a step, {:5.2f} us a token (target: below 50 us at batch 1)\n", batch,
               step_us, step_us / batch);
  }
  std::vector<float> row(151936);
  std::mt19937_64 random(1);
  for (float& logit : row) logit = std::normal_distribution<float>(0, 3)(random);
  const auto time = [&](const char* name, float temperature, float top_p, int top_k, float min_p) {
    SamplingParams params;
    params.temperature = temperature;
    params.top_p = top_p;
    params.top_k = top_k;
    params.min_p = min_p;
    SampleScratch scratch;
    SampleInput input;
    input.params = &params;
    input.vocab_limit = static_cast<int>(row.size());
    const double begin = thread_cpu_s();
    int64_t sum = 0;
    for (int i = 0; i < 200; ++i) {
      input.position = i;
      sum += sample(row, input, scratch).value();
    }
    fmt::print("sampler   vocab 151936, {:22}: {:7.1f} us a token  [{}]\n", name, (thread_cpu_s() - begin) / 200 * 1e6,
               sum);
  };
  time("greedy", 0, 1, 0, 0);
  time("temperature 1", 1, 1, 0, 0);
  time("temperature .7 top_p .9", 0.7f, 0.9f, 0, 0);
  time("top_k 50", 1, 1, 50, 0);
  time("min_p 0.05", 1, 1, 0, 0.05f);
}

// Short requests on the engine's own thread, a third of them cancelled at random times: memory flat, no page lost.
void soak(int requests) {
  EngineOptions options;
  options.kv_cache_bytes = 4 << 20;
  options.threads = 1;
  auto engine = std::move(Engine::start(std::make_unique<FakeModel>(FakeOptions{.draft = true}), options)).value();
  auto sink = std::make_shared<Counter>();
  std::mt19937_64 random(1);
  int64_t accepted = 0, refused = 0;
  double settled_mib = 0;
  const TimePoint begin = kClock.now();
  for (int i = 1; i <= requests; ++i) {
    std::vector<int32_t> prompt(1 + random() % 40);
    for (auto& token : prompt) token = static_cast<int32_t>(random() % 8);
    auto request = make_request(i, std::move(prompt), 1 + static_cast<int>(random() % 16), random() % 2 ? 1.0f : 0.0f);
    request->priority = static_cast<Priority>(static_cast<int>(random() % 3) - 1);
    while (auto refusal = engine->submit(std::make_unique<Request>(std::move(*request)), sink)) {
      ++refused;
      request = make_request(i, {1, 2, 3}, 4);
      usleep(200);
    }
    ++accepted;
    if (random() % 3 == 0) engine->cancel(i - static_cast<int>(random() % 8));
    if (i == requests / 10) settled_mib = resident_mib();
    if (i % (requests / 10) == 0) fmt::print("soak      {:7} requests, resident {:.1f} MiB\n", i, resident_mib());
  }
  engine->drain(TimePoint::max());
  const EngineState state = engine->state();
  fmt::print(
      "soak      {} accepted, {} ended, {} refusals retried, {:.0f} requests/s; pages {} free + {} cached of {}; "
      "resident {:.1f} -> {:.1f} MiB\n",
      accepted, sink->finished_.load(), refused, requests / seconds_since(begin), state.pages_free, state.pages_cached,
      state.pages_total, settled_mib, resident_mib());
  SW_CHECK(state.pages_free + state.pages_cached == state.pages_total, "a page was lost");
  SW_CHECK(sink->finished_ == accepted, "a request never ended");
}

struct Served {
  double tokens_per_s = 0;
  double tokens_per_cpu_s = 0;
  double accuracy = 0;
  Usage usage;
};

// Lets in one more whenever a request has ended.
class Door {
 public:
  explicit Door(int places) : places_(places) {}
  void enter() {
    std::unique_lock lock(mutex_);
    freed_.wait(lock, [&] { return places_ > 0; });
    --places_;
  }
  void leave() {
    {
      std::lock_guard lock(mutex_);
      ++places_;
    }
    freed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  int places_;
};

class Client final : public EventSink {
 public:
  explicit Client(Door& door) : door_(door) {}
  void on_event(Event event) override {
    for (const auto& token : event.tokens) tokens.push_back(token.token);
    usage = event.usage;
    if (event.finish != FinishReason::kNone) door_.leave();
  }
  std::vector<int32_t> tokens;  // to be read after the end
  Usage usage;

 private:
  Door& door_;
};

// Closed loop: always `clients` requests under way, until the questions are used up.
Served serve(std::unique_ptr<models::LanguageModel> model, const Evaluation& evaluation, int clients,
             EngineOptions options) {
  auto engine = std::move(Engine::start(std::move(model), options)).value();
  Door door(clients);
  std::vector<std::shared_ptr<Client>> sinks;
  const TimePoint begin = kClock.now();
  const double begin_cpu_s = cpu_s(CLOCK_PROCESS_CPUTIME_ID);
  for (size_t i = 0; i < evaluation.questions.size(); ++i) {
    door.enter();
    auto request = make_request(i, evaluation.questions[i].prompt, 300);
    request->stop_tokens = {evaluation.end_of_sequence};
    sinks.push_back(std::make_shared<Client>(door));
    const auto refusal = engine->submit(std::move(request), sinks.back());
    SW_CHECK(!refusal, refusal ? refusal->message : "");
  }
  engine->drain(TimePoint::max());
  const double wall_s = seconds_since(begin), spent_s = cpu_s(CLOCK_PROCESS_CPUTIME_ID) - begin_cpu_s;
  Served served;
  int64_t tokens = 0, right = 0;
  for (size_t i = 0; i < sinks.size(); ++i) {
    tokens += static_cast<int64_t>(sinks[i]->tokens.size());
    right += evaluation.right(evaluation.questions[i], sinks[i]->tokens);
    served.usage.draft_tokens += sinks[i]->usage.draft_tokens;
    served.usage.accepted_tokens += sinks[i]->usage.accepted_tokens;
  }
  served.tokens_per_s = static_cast<double>(tokens) / wall_s;
  served.tokens_per_cpu_s = static_cast<double>(tokens) / spent_s;
  served.accuracy = static_cast<double>(right) / static_cast<double>(sinks.size());
  return served;
}

Served serve(const std::string& folder, const Evaluation& evaluation, int clients, EngineOptions options) {
  models::LoadOptions load;
  load.path = folder;
  load.threads = options.threads;
  return serve(std::move(models::load_model(load)).value(), evaluation, clients, options);
}

void batching(const std::string& folder) {
  const Evaluation some = testing::load_evaluation(folder, 25), all = testing::load_evaluation(folder, 2);
  for (const int threads : {0, 1}) {
    for (const bool speculate : {true, false}) {
      EngineOptions options;
      options.threads = threads;
      options.speculate = speculate;
      const Served one = serve(folder, some, 1, options);
      const Served many = serve(folder, all, 64, options);
      fmt::print(
          "batching  {} threads, drafts {:3}: 1 client {:.0f} tokens/s, 64 clients {:.0f} tokens/s: {:.1f}x (target "
          "10x); by CPU time {:.0f} and {:.0f}: {:.1f}x; right {:.1f}% and {:.1f}%\n",
          threads == 0 ? "all" : "one", speculate ? "on" : "off", one.tokens_per_s, many.tokens_per_s,
          many.tokens_per_s / one.tokens_per_s, one.tokens_per_cpu_s, many.tokens_per_cpu_s,
          many.tokens_per_cpu_s / one.tokens_per_cpu_s, one.accuracy * 100, many.accuracy * 100);
    }
  }
}

void acceptance(const std::string& folder) {
  EngineOptions options;
  options.speculate_adaptively = false;
  const Served served = serve(folder, testing::load_evaluation(folder, 5), 16, options);
  fmt::print("acceptance {} of {} drafts kept: {:.2f}% (target 95%); right {:.1f}%\n", served.usage.accepted_tokens,
             served.usage.draft_tokens, 100.0 * served.usage.accepted_tokens / served.usage.draft_tokens,
             served.accuracy * 100);
}

enum class Drafts { kNone, kHost, kDevice, kProbed };

constexpr const char* kDrafts[] = {"none", "through the host", "in the step",
                                   "in the step, some steps plain to compare"};
constexpr tensor::Device kDevice{tensor::DeviceKind::kCuda, 0};
constexpr int kPageTokens = 64;

std::unique_ptr<models::LanguageModel> load_on_device(const std::string& folder, const std::string& precision,
                                                      Drafts drafts) {
  models::LoadOptions load;
  load.path = folder;
  load.device = kDevice;
  load.precision = std::move(models::parse_precision(precision)).value();
  auto model = std::move(models::load_model(load)).value();
  if (drafts == Drafts::kHost) model = std::make_unique<testing::HostDrafts>(std::move(model));
  return model;
}

EngineOptions device_options(Drafts drafts) {
  EngineOptions options;
  options.page_tokens = kPageTokens;
  options.device = kDevice;
  options.speculate = drafts != Drafts::kNone;
  options.speculate_adaptively = drafts == Drafts::kProbed;
  return options;
}

// The questions by `clients` at a time.
void questions(const std::string& folder, const std::string& precision, Drafts drafts, int clients) {
  EngineOptions options = device_options(drafts);
  options.kv_cache_bytes = int64_t{1} << 30;
  const Evaluation evaluation = testing::load_evaluation(folder, clients == 1 ? 20 : 1);
  const Served served = serve(load_on_device(folder, precision, drafts), evaluation, clients, options);
  fmt::print("questions {:3} clients, drafts {:17}: {:6.0f} tokens/s, right {:.1f}%, {} of {} drafts kept\n", clients,
             kDrafts[static_cast<int>(drafts)], served.tokens_per_s, served.accuracy * 100,
             served.usage.accepted_tokens, served.usage.draft_tokens);
}

// `sequences` requests of 400 tokens each that begin together. Of steps behind a decode step.
void bubble(const std::string& folder, const std::string& precision, Drafts drafts, int sequences) {
  constexpr int kTokens = 400;
  auto model = load_on_device(folder, precision, drafts);
  auto stream = std::move(tensor::Stream::open(kDevice)).value();
  auto storage = std::move(nn::KvStorage::create(model->info().kv, kPageTokens, sequences * 8, kDevice)).value();
  kernels::tune({.measure = false, .known = {}}, stream);
  const Limits limits{.context_tokens = 8 * kPageTokens,
                      .batch_tokens = model->batch_tokens_max(),
                      .prompt_logprob_rows = 64,
                      .vocab = model->info().vocab_size};
  Runner runner(std::move(model), std::move(storage), std::move(stream));
  runner.warm_up(sequences);
  Core core(device_options(drafts), limits, runner, kClock);
  const Evaluation evaluation = testing::load_evaluation(folder, 8);
  auto sink = std::make_shared<Counter>();
  for (int i = 0; i < sequences; ++i) {
    const auto& question = evaluation.questions[static_cast<size_t>(i) % evaluation.questions.size()];
    core.submit(std::make_unique<Sequence>(make_request(i, question.prompt, kTokens), sink, kPageTokens, kClock.now()));
  }
  std::vector<double> idle_s;
  int64_t tokens = 0;
  TimePoint begin = kClock.now();
  for (bool decoding = false; !core.idle();) {
    core.step();
    const StepRecord& record = core.state().record;
    if (decoding) tokens += record.emitted;
    if (decoding && record.idle_s >= 0) idle_s.push_back(record.idle_s);
    if (!decoding) begin = kClock.now();
    decoding = decoding || (record.decode_rows > 0 && record.prefill_tokens == 0);
  }
  const double spent_s = seconds_since(begin);
  SW_CHECK(!idle_s.empty(), "no step says how long the device waited");
  std::ranges::sort(idle_s);
  const auto at = [&](double part) { return idle_s[static_cast<size_t>(part * double(idle_s.size() - 1))] * 1e6; };
  fmt::print(
      "bubble    {:3} sequences, drafts {:17}: {:4} steps, {:6.0f} tokens/s; idle between steps median {:.1f} us, 99% "
      "{:.1f}, worst {:.1f}; {} above 50 us\n",
      sequences, kDrafts[static_cast<int>(drafts)], idle_s.size(), static_cast<double>(tokens) / spent_s, at(0.5),
      at(0.99), at(1), std::ranges::count_if(idle_s, [](double s) { return s > 50e-6; }));
}

}  // namespace
}  // namespace spillway::engine

int main(int argc, char** argv) {
  spdlog::set_level(spdlog::level::warn);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string mode = argc > 1 ? argv[1] : "overhead";
  const std::string folder = argc > 2 ? argv[2] : "models/tiny-r1";
  if (mode == "overhead") {
    spillway::engine::overhead();
  } else if (mode == "soak") {
    spillway::engine::soak(argc > 2 ? std::atoi(argv[2]) : 200000);
  } else if (mode == "batching") {
    spillway::engine::batching(folder);
  } else if (mode == "acceptance") {
    spillway::engine::acceptance(folder);
  } else if (mode == "bubble") {
    using spillway::engine::Drafts;
    const std::string precision = argc > 3 ? argv[3] : "auto";
    for (const int sequences : {1, 8, 64}) {
      for (const Drafts drafts : {Drafts::kNone, Drafts::kHost, Drafts::kDevice, Drafts::kProbed}) {
        spillway::engine::bubble(folder, precision, drafts, sequences);
        if (sequences != 8) spillway::engine::questions(folder, precision, drafts, sequences);
      }
    }
  } else {
    fmt::print(stderr, "engine_bench: expected overhead, soak, batching, acceptance or bubble, found {}\n", mode);
    return 2;
  }
  return 0;
}
