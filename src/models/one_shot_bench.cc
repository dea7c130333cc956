// one_shot_bench MODEL PRECISION [--threads N] [--tokens BATCH] [--lengths FILE] [--seconds S]
// Texts a second of processor time (of all threads together, so that neighbours on the machine count little) of an
// encoder over texts of the given lengths, in ragged batches; a config.json alone runs on random weights. One line of
// JSON. With --device cuda wall time; with --batch one batch of texts of --each tokens, or of images.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <map>
#include <random>
#include <string>

#include "models/one_shot_loader.h"

namespace spillway::models {
namespace {

std::vector<int> read_lengths(const std::string& path) {
  std::vector<int> lengths;
  std::ifstream in(path);
  for (int length = 0; in >> length;) lengths.push_back(length);
  if (lengths.empty()) lengths.assign(32, 165);
  return lengths;
}

struct Texts {
  std::vector<std::vector<int32_t>> tokens;
  int64_t total = 0;
};

Texts make_texts(const std::vector<int>& lengths, int vocabulary) {
  std::mt19937 random(1);
  Texts texts;
  for (const int length : lengths) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < length; ++i) tokens.push_back(int32_t(random() % uint32_t(vocabulary)));
    texts.tokens.push_back(std::move(tokens));
    texts.total += length;
  }
  return texts;
}

// One pass over all texts, in batches of at most so many tokens.
void pass(OneShotModel& model, const Texts& texts, int64_t batch_tokens, tensor::Stream& stream) {
  std::vector<OneShotInput> batch;
  int64_t cost = 0;
  const auto flush = [&] {
    if (!batch.empty()) model.run(batch, stream);
    batch.clear();
    cost = 0;
  };
  for (const auto& tokens : texts.tokens) {
    if (cost + int64_t(tokens.size()) > batch_tokens || int(batch.size()) == model.batch_inputs_max()) flush();
    batch.push_back({.tokens = tokens, .types = {}, .pixels = {}, .output = model.info().outputs.front()});
    cost += int64_t(tokens.size());
  }
  flush();
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// On a device wall time counts, for the host waits: passes over all texts, or one batch again and again, with its way
// to the device and back, and the device's part alone.
int run_on_device(OneShotModel& model, const std::map<std::string, std::string>& options, tensor::Device device) {
  auto opened = tensor::Stream::open(device, std::atoi(options.at("--threads").c_str()));
  if (!opened.ok()) return std::fprintf(stderr, "%s\n", opened.error().message.c_str()), 1;
  tensor::Stream stream = std::move(*opened);
  const OneShotInfo& info = model.info();
  const int batch = std::atoi(options.at("--batch").c_str()), each = std::atoi(options.at("--each").c_str());
  const Texts texts =
      make_texts(batch > 0 ? std::vector<int>(size_t(batch), each) : read_lengths(options.at("--lengths")),
                 std::max(1, info.vocab_size));
  std::vector<float> pixels(size_t(info.channels) * size_t(info.height) * size_t(info.width) *
                            size_t(std::max(batch, 1)));
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& value : pixels) value = normal(random);
  const auto once = [&] {
    if (!info.vision)
      return pass(model, texts, batch > 0 ? int64_t(batch) * each : std::atoll(options.at("--tokens").c_str()), stream);
    std::vector<OneShotInput> images;
    const size_t size = pixels.size() / size_t(batch);
    for (int i = 0; i < batch; ++i)
      images.push_back({.tokens = {},
                        .types = {},
                        .pixels = std::span(pixels).subspan(size_t(i) * size, size),
                        .output = OneShotOutput::kScores});
    model.run(images, stream);
  };
  const double limit = std::atof(options.at("--seconds").c_str());
  const auto measure = [&](const auto& work) {
    std::vector<double> times;
    for (int i = 0; i < 3; ++i) work();
    stream.synchronize();
    for (double spent = 0; spent < limit || times.size() < 5; spent += times.back()) {
      const double start = seconds_now();
      work();
      stream.synchronize();
      times.push_back(seconds_now() - start);
    }
    return median(times);
  };
  const double whole = measure(once);
  double alone = 0;
  if (batch > 0) alone = measure([&] { model.recompute(stream); });
  std::printf("%s\n",
              fmt::format("{{\"precision\": \"{}\", \"inputs_per_s\": {:.1f}, \"ms\": {:.4f}, \"device_ms\": {:.4f}, "
                          "\"launches\": {}, \"weight_bytes\": {}}}",
                          info.precision, double(info.vision ? batch : int(texts.tokens.size())) / whole, whole * 1e3,
                          alone * 1e3, model.launches(), info.weight_bytes)
                  .c_str());
  return 0;
}

int run(int argc, char** argv) {
  std::map<std::string, std::string> options = {{"--threads", "0"}, {"--tokens", "4096"}, {"--lengths", ""},
                                                {"--seconds", "3"}, {"--device", "cpu"},  {"--batch", "0"},
                                                {"--each", "128"}};
  for (int i = 3; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  const auto precision = parse_precision(argc > 2 ? argv[2] : "fp32");
  if (argc < 3 || !precision.ok()) {
    std::fprintf(stderr,
                 "one_shot_bench MODEL PRECISION [--threads N] [--tokens N] [--lengths FILE] [--seconds S]\n"
                 "               [--device cuda [--batch INPUTS [--each TOKENS]]]\n");
    return 2;
  }
  const int threads = std::atoi(options["--threads"].c_str());
  const int64_t batch_tokens = std::atoll(options["--tokens"].c_str());
  const std::string path = argv[1];
  const tensor::Device device{options["--device"] == "cuda" ? tensor::DeviceKind::kCuda : tensor::DeviceKind::kCpu, 0};
  auto model = load_one_shot_model({.path = path,
                                    .random_weights = path.ends_with(".json"),
                                    .precision = *precision,
                                    .batch_tokens_max = int(batch_tokens),
                                    .device = device,
                                    .threads = threads,
                                    .progress = {}});
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.error().message.c_str());
    return 1;
  }
  if (device.kind == tensor::DeviceKind::kCuda) return run_on_device(**model, options, device);
  tensor::Stream stream(threads);
  const Texts texts = make_texts(read_lengths(options["--lengths"]), (*model)->info().vocab_size);
  pass(**model, texts, batch_tokens, stream);
  double best = 1e9, spent = 0;
  const double limit = std::atof(options["--seconds"].c_str());
  int passes = 0;
  for (; spent < limit || passes < 2; ++passes) {
    const std::clock_t start = std::clock();
    pass(**model, texts, batch_tokens, stream);
    const double took = double(std::clock() - start) / CLOCKS_PER_SEC;
    best = std::min(best, took);
    spent += took;
  }
  const OneShotInfo& info = (*model)->info();
  std::printf("%s\n",
              fmt::format("{{\"precision\": \"{}\", \"texts_per_s\": {:.1f}, \"tokens_per_s\": {:.0f}, "
                          "\"product_gflops\": {:.1f}, \"passes\": {}, \"weight_bytes\": {}}}",
                          info.precision, double(texts.tokens.size()) / best, double(texts.total) / best,
                          double(texts.total) * double(info.flops_per_token) / best * 1e-9, passes, info.weight_bytes)
                  .c_str());
  return 0;
}

}  // namespace
}  // namespace spillway::models

int main(int argc, char** argv) { return spillway::models::run(argc, argv); }
