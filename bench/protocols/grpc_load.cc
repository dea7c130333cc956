// Open-loop load over KServe's gRPC: requests come when they are due, whether or not others have been answered, Poisson
// with bursts (every ten seconds hold two of `burst` times the rate of the other eight), as triton_load.py --poisson
// sends them, but from a sender that is not late: its lateness is printed. Times count from when a request was due.
//   grpc_load ADDRESS MODEL RATE [--seconds 60] [--burst 3] [--timeout-ms 50] [--words 20] [--file TEXT] [--channels 4]
// Texts are drawn from the words of TEXT (default: this program's source), their lengths uniform from 1 to twice
// --words. Refusals are told apart: at once (the server predicted that the answer would be late, or its line was full)
// and in the line (accepted, and the timeout passed).
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "inference.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;
using Stub = inference::GRPCInferenceService::Stub;

struct Options {
  std::string address, model, file = SPILLWAY_LOAD_SOURCE;
  double rate = 0, seconds = 60, burst = 3;
  int timeout_ms = 50, words = 20, channels = 4;
};

enum class Kind { kAnswered, kAtOnce, kInLine, kFailed, kPending };

struct Sent {
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  Clock::time_point due, done;
  double late_ms = 0;
  std::atomic<Kind> kind{Kind::kPending};
  std::string error;
};

std::vector<std::string> texts(const Options& options, std::mt19937_64& rng) {
  std::ifstream file(options.file, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  std::vector<std::string> words(1);
  for (const unsigned char byte : bytes) {
    if (std::isalnum(byte) || byte == '_') {
      words.back() += static_cast<char>(byte);
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  if (words.empty()) {
    std::fprintf(stderr, "%s: expected words, found none\n", options.file.c_str());
    std::exit(1);
  }
  std::vector<std::string> out(256);
  for (std::string& text : out) {
    const int count = std::uniform_int_distribution<int>(1, 2 * options.words)(rng);
    for (int i = 0; i < count; ++i) text += (i > 0 ? " " : "") + words[rng() % words.size()];
  }
  return out;
}

inference::ModelInferRequest request_of(const Options& options, const std::string& text) {
  inference::ModelInferRequest request;
  request.set_model_name(options.model);
  auto* input = request.add_inputs();
  input->set_name("text");
  input->set_datatype("BYTES");
  input->add_shape(1);
  input->add_shape(1);
  input->mutable_contents()->add_bytes_contents(text);
  if (options.timeout_ms > 0) {
    (*request.mutable_parameters())["timeout"].set_int64_param(int64_t{options.timeout_ms} * 1000);
  }
  return request;
}

// Seconds from the start.
std::vector<double> arrivals(const Options& options, std::mt19937_64& rng) {
  const double calm = options.rate * 10 / (8 + 2 * options.burst);
  std::vector<double> out;
  for (double at = 0; at < options.seconds;) {
    at += std::exponential_distribution<double>(calm * (std::fmod(at, 10) >= 8 ? options.burst : 1))(rng);
    out.push_back(at);
  }
  return out;
}

Kind kind_of(const grpc::Status& status) {
  if (status.ok()) return Kind::kAnswered;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return Kind::kInLine;
  const bool refused = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                       status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
  return refused ? Kind::kAtOnce : Kind::kFailed;
}

double quantile(std::vector<double>& sorted, double q) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted.size())))];
}

void print(const char* name, std::vector<double> ms, size_t all) {
  if (ms.empty()) {
    std::printf("%-22s %8d\n", name, 0);
    return;
  }
  std::sort(ms.begin(), ms.end());
  std::printf("%-22s %8zu  %5.1f%%   p50 %7.2f  p99 %7.2f  p99.9 %7.2f  slowest %7.2f ms\n", name, ms.size(),
              100.0 * static_cast<double>(ms.size()) / static_cast<double>(all), quantile(ms, 0.5), quantile(ms, 0.99),
              quantile(ms, 0.999), ms.back());
}

void report(const Options& options, const std::vector<std::unique_ptr<Sent>>& sent) {
  std::vector<double> answered, at_once, in_line, late;
  size_t failed = 0, hung = 0;
  std::string failure;
  for (const auto& one : sent) {
    late.push_back(one->late_ms);
    const double ms = std::chrono::duration<double, std::milli>(one->done - one->due).count();
    switch (one->kind.load()) {
      case Kind::kAnswered:
        answered.push_back(ms);
        break;
      case Kind::kAtOnce:
        at_once.push_back(ms);
        break;
      case Kind::kInLine:
        in_line.push_back(ms);
        break;
      case Kind::kFailed:
        ++failed, failure = one->error;
        break;
      case Kind::kPending:
        ++hung;
        break;
    }
  }
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  std::printf("%.0f requests/s offered for %.0f s, %.0fx bursts, timeout %d ms; the client used %.0f%% of a core\n",
              options.rate, options.seconds, options.burst, options.timeout_ms,
              100 *
                  (double(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   1e-6 * double(used.ru_utime.tv_usec + used.ru_stime.tv_usec)) /
                  options.seconds);
  std::vector<double> refused = at_once;
  refused.insert(refused.end(), in_line.begin(), in_line.end());
  print("answered", answered, sent.size());
  print("refused", refused, sent.size());
  print("  of them at once", at_once, sent.size());
  print("  of them in the line", in_line, sent.size());
  print("sender's lateness", late, sent.size());
  std::printf("failed %zu %s, no answer %zu\n", failed, failure.c_str(), hung);
}

Options parse(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: grpc_load ADDRESS MODEL RATE [--seconds S] [--burst B] [--timeout-ms T] [--words W] "
                 "[--file TEXT] [--channels N]\n");
    std::exit(2);
  }
  Options options;
  options.address = argv[1], options.model = argv[2], options.rate = std::atof(argv[3]);
  for (int i = 4; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--seconds")
      options.seconds = std::atof(argv[i + 1]);
    else if (flag == "--burst")
      options.burst = std::atof(argv[i + 1]);
    else if (flag == "--timeout-ms")
      options.timeout_ms = std::atoi(argv[i + 1]);
    else if (flag == "--words")
      options.words = std::atoi(argv[i + 1]);
    else if (flag == "--file")
      options.file = argv[i + 1];
    else if (flag == "--channels")
      options.channels = std::atoi(argv[i + 1]);
    else
      std::fprintf(stderr, "unknown option %s\n", flag.c_str()), std::exit(2);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  std::mt19937_64 rng(11);
  std::vector<inference::ModelInferRequest> requests;
  for (const std::string& text : texts(options, rng)) requests.push_back(request_of(options, text));
  const std::vector<double> when = arrivals(options, rng);
  std::vector<std::unique_ptr<Stub>> stubs;
  for (int i = 0; i < options.channels; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection each
    stubs.push_back(inference::GRPCInferenceService::NewStub(
        grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments)));
  }
  for (size_t i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    inference::ModelInferResponse response;
    inference::ModelInferRequest warm = requests[i];
    warm.clear_parameters();
    const grpc::Status status = stubs[i % stubs.size()]->ModelInfer(&context, warm, &response);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.error_message().c_str());
      return 1;
    }
  }
  std::vector<std::unique_ptr<Sent>> sent(when.size());
  for (auto& one : sent) one = std::make_unique<Sent>();
  std::atomic<size_t> ended{0};
  const auto start = Clock::now() + std::chrono::milliseconds(10);
  for (size_t i = 0; i < when.size(); ++i) {
    Sent& one = *sent[i];
    one.due = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(when[i]));
    std::this_thread::sleep_until(one.due);
    one.late_ms = std::chrono::duration<double, std::milli>(Clock::now() - one.due).count();
    stubs[i % stubs.size()]->async()->ModelInfer(&one.context, &requests[i % requests.size()], &one.response,
                                                 [&one, &ended](grpc::Status status) {
                                                   one.done = Clock::now();
                                                   one.error = status.error_message();
                                                   one.kind = kind_of(status);
                                                   ++ended;
                                                 });
  }
  const auto patience = Clock::now() + std::chrono::seconds(30);
  while (ended < when.size() && Clock::now() < patience) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  report(options, sent);
  std::fflush(stdout);
  std::_Exit(ended == when.size() ? 0 : 1);  // calls that hang would hold an orderly end up
}
