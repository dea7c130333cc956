// How fast a model's steps are, beside the machine's floor: load time, resident memory, decode at several batch sizes,
// prefill. usage: model_bench MODEL|CONFIG.json [--random] [--precision P] [--threads N] [--context N] [--seconds S]
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <numeric>

#include "kernels/tuning.h"
#include "models/loader.h"

namespace spillway::models {
namespace {

struct Options {
  LoadOptions load;
  std::string precision = "auto", device = "cpu";
  int context = 512;
  double seconds = 3;
  std::vector<int> batches = {1, 8, 64};
  bool decode_only = false;
  bool deterministic = false;
  bool autotune = false;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Processor time of all threads: what a step costs where other programs take the cores away meanwhile.
double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

// Resident bytes of this process now, and at most.
double resident_mb() {
  std::ifstream in("/proc/self/statm");
  int64_t total = 0, resident = 0;
  in >> total >> resident;
  return double(resident) * double(sysconf(_SC_PAGESIZE)) / 1e6;
}
double peak_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) * 1024 / 1e6;
}

// GB/s that all threads read together from memory far larger than the caches.
double read_bandwidth(tensor::Stream& stream) {
  constexpr int64_t kWords = int64_t(1) << 27;  // 1 GiB
  tensor::Tensor data(tensor::DType::kI64, {kWords});
  int64_t* words = data.as<int64_t>();
  stream.parallel_for(kWords, 1 << 16,
                      [&](int64_t begin, int64_t end, int) { std::fill(words + begin, words + end, 1); });
  std::vector<int64_t> sums(size_t(stream.threads()) * 8);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double begin = now();
    stream.parallel_for(kWords, 1 << 16, [&](int64_t first, int64_t last, int thread) {
      int64_t a[32] = {};
      for (int64_t j = first; j + 32 <= last; j += 32) {
        for (int k = 0; k < 32; ++k) a[k] += words[j + k];
      }
      sums[size_t(thread) * 8] += std::accumulate(a, a + 32, int64_t(0));
    });
    best = std::max(best, double(kWords) * 8 / (now() - begin) / 1e9);
  }
  SW_CHECK(std::accumulate(sums.begin(), sums.end(), int64_t(0)) > 0, "the sum of ones");
  return best;
}

class Bench {
 public:
  Bench(LanguageModel& model, const Options& options, tensor::Stream stream)
      : model_(model),
        options_(options),
        stream_(std::move(stream)),
        page_tokens_(stream_.device().kind == tensor::DeviceKind::kCpu ? 16 : 64) {}

  void run() {
    const bool cpu = stream_.device().kind == tensor::DeviceKind::kCpu;
    const double bandwidth = options_.decode_only || !cpu ? 0 : read_bandwidth(stream_);
    const ModelInfo& info = model_.info();
    const double floor = bandwidth * 1e9 / double(info.decode_bytes);
    std::printf("%s %s, %d threads: %.0f M parameters, %.1f MB of weights, %.1f MB read a step, %.1f MFLOP a token\n",
                info.architecture.c_str(), info.precision.c_str(), stream_.threads(), double(info.parameters) / 1e6,
                double(info.weight_bytes) / 1e6, double(info.decode_bytes) / 1e6, double(info.flops_per_token) / 1e6);
    if (bandwidth > 0) std::printf("memory reads %.1f GB/s: at most %.1f steps/s\n", bandwidth, floor);
    if (!options_.decode_only) prefill();
    for (const int batch : options_.batches) decode(batch, floor);
    std::printf("resident %.0f MB, peak %.0f MB\n", resident_mb(), peak_mb());
  }

 private:
  std::vector<int32_t> tokens(int count) const {
    std::vector<int32_t> list(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) list[size_t(i)] = int32_t((i * 7919 + 13) % model_.info().vocab_size);
    return list;
  }

  nn::KvStorage storage(int sequences, int context) const {
    const int pages = sequences * ((context + page_tokens_ - 1) / page_tokens_);
    auto kv = nn::KvStorage::create(model_.info().kv, page_tokens_, pages, stream_.device());
    SW_CHECK(kv.ok(), "pages");
    return std::move(*kv);
  }

  std::vector<std::vector<int32_t>> page_lists(const nn::KvStorage& kv, int sequences) const {
    std::vector<std::vector<int32_t>> lists(static_cast<size_t>(sequences));
    for (int p = 0; p < kv.pages(); ++p) lists[size_t(p % sequences)].push_back(p);
    return lists;
  }

  void prefill() {
    const int count = std::min(options_.context, model_.batch_tokens_max());
    nn::KvStorage kv = storage(1, count);
    const auto pages = page_lists(kv, 1);
    const std::vector<int32_t> prompt = tokens(count);
    const SequenceInput input{.tokens = prompt, .position = 0, .pages = pages[0], .logits_rows = 1};
    const auto once = [&] {
      const double begin = now();
      model_.forward(std::span(&input, 1), kv, stream_);
      stream_.synchronize();
      return now() - begin;
    };
    const double first = once();
    double best = first;
    int runs = 0;
    const double processor = processor_seconds();
    for (double spent = 0; spent < options_.seconds; ++runs) {
      const double seconds = once();
      best = std::min(best, seconds);
      spent += seconds;
    }
    std::printf("prefill %d: %.1f tok/s best (%.1f ms; first %.1f ms; processor %.1f ms), %.1f GFLOP/s\n", count,
                count / best, best * 1e3, first * 1e3, (processor_seconds() - processor) / runs * 1e3,
                double(model_.info().flops_per_token) * count / best / 1e9);
  }

  // `batch` sequences, each `context` tokens long already, one token a step.
  void decode(int batch, double floor) {
    const int context = std::min(options_.context, model_.info().context_tokens_max - 64);
    nn::KvStorage kv = storage(batch, context + 64);
    const auto pages = page_lists(kv, batch);
    const std::vector<int32_t> prompt = tokens(context);
    const int chunk = model_.batch_tokens_max();
    for (int s = 0; s < batch; ++s) {
      for (int at = 0; at < context; at += chunk) {
        const auto slice = std::span(prompt).subspan(size_t(at), size_t(std::min(chunk, context - at)));
        const SequenceInput input{.tokens = slice, .position = at, .pages = pages[size_t(s)], .logits_rows = 0};
        model_.forward(std::span(&input, 1), kv, stream_);
      }
    }
    const std::vector<int32_t> next = tokens(batch);
    std::vector<double> times;
    const double begin = now(), processor = processor_seconds();
    while (times.size() < 3 || now() - begin < options_.seconds) {
      std::vector<SequenceInput> inputs;
      for (int s = 0; s < batch; ++s) {
        inputs.push_back({.tokens = std::span(next).subspan(size_t(s), 1),
                          .position = context + int(times.size()) % 64,
                          .pages = pages[size_t(s)],
                          .logits_rows = 1});
      }
      const double start = now();
      step(inputs, kv);
      times.push_back(now() - start);
    }
    const double step_processor = (processor_seconds() - processor) / double(times.size());
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    std::printf("decode batch %d at context %d: %.1f tok/s (step %.3f ms median, %.3f best, processor %.3f)", batch,
                context, batch / median, median * 1e3, times[0] * 1e3, step_processor * 1e3);
    if (batch == 1 && floor > 0) std::printf(", %.0f%% of the floor", 100 / median / floor);
    std::printf("\n");
  }

  // To the tokens where the device draws them, else to the logits.
  void step(std::span<const SequenceInput> inputs, nn::KvStorage& kv) {
    if (model_.draws_tokens()) {
      const std::vector<TokenDraw> draws(inputs.size(), TokenDraw{.how = {.vocab = model_.info().vocab_size}});
      model_.launch(inputs, draws, std::vector<int32_t>(inputs.size(), -1), kv, stream_);
      model_.land(stream_);
    } else {
      model_.forward(inputs, kv, stream_);
      stream_.synchronize();
    }
  }

  LanguageModel& model_;
  const Options& options_;
  tensor::Stream stream_;
  int page_tokens_;
};

int run(Options options) {
  const auto precision = parse_precision(options.precision);
  if (!precision.ok()) {
    std::fprintf(stderr, "%s\n", precision.error().message.c_str());
    return 1;
  }
  options.load.precision = *precision;
  const auto device = tensor::parse_device(options.device);
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", device.error().message.c_str());
    return 1;
  }
  options.load.device = *device;
  const double begin = now();
  auto model = load_model(options.load);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.error().message.c_str());
    return 1;
  }
  std::printf("loaded in %.3f s, resident %.0f MB, peak %.0f MB\n", now() - begin, resident_mb(), peak_mb());
  auto stream = tensor::Stream::open(options.load.device, options.load.threads);
  if (!stream.ok()) {
    std::fprintf(stderr, "%s\n", stream.error().message.c_str());
    return 1;
  }
  kernels::tune({.measure = options.autotune, .known = {}}, *stream);
  stream->set_batch_invariant(options.deterministic);
  Bench(**model, options, std::move(*stream)).run();
  return 0;
}

}  // namespace
}  // namespace spillway::models

int main(int argc, char** argv) {
  spillway::models::Options options;
  CLI::App program("Measures a model's steps");
  program.add_option("model", options.load.path, "a model folder, or with --random a config.json")->required();
  program.add_flag("--random", options.load.random_weights, "random weights of the config's shapes");
  program.add_option("--precision", options.precision);
  program.add_option("--device", options.device, "cpu, cuda or cuda:N");
  program.add_flag("--deterministic", options.deterministic, "kernels whose bits do not depend on the batch");
  program.add_flag("--autotune", options.autotune, "measures the library's products as they are first met");
  program.add_option("--threads", options.load.threads);
  program.add_option("--context", options.context);
  program.add_option("--seconds", options.seconds, "for each measurement");
  program.add_option("--batch", options.batches, "sequences that decode together; several are measured in turn");
  program.add_flag("--decode-only", options.decode_only, "leaves out the floor and prefill, for a profiler");
  program.add_option("--batch-tokens", options.load.batch_tokens_max);
  CLI11_PARSE(program, argc, argv);
  return spillway::models::run(options);
}
