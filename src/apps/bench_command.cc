// spillway bench latency|throughput|roofline|fusion|load
#include <CLI/CLI.hpp>

#include "apps/bench/bench.h"
#include "apps/command.h"
#include "apps/options.h"
#include "apps/shapes.h"

namespace spillway::apps {
namespace {

// The options of the benchmarks in process. --model-config names a shape, whose weights are then random.
std::shared_ptr<ConfigFlags> add_model_flags(CLI::App& command, bool& as_json) {
  command.add_flag("--json", as_json, "Print JSON");
  const auto flags = ConfigFlags::add(command, {"model", "hardware", "engine", "log"});
  command.add_option_function<std::string>(
      "--model-config",
      [flags](const std::string& shape) {
        flags->prefer("model.path", shape);
        flags->prefer("model.random_weights", "true");
      },
      "A config.json, or a named shape, with random weights: " + shape_names());
  return flags;
}

int run(ConfigFlags& flags, const std::function<Status(const config::Config&)>& bench) {
  flags.prefer("log.level", "warn");
  flags.prefer("engine.queue_wait_max", "24h");  // a benchmark waits for all that it submits
  const auto config = flags.resolve();
  if (!config.ok()) return fail(config.error());
  const auto done = bench(*config);
  return done.ok() ? 0 : fail(done.error());
}

void add_latency(CLI::App& group, int& status) {
  CLI::App* command = group.add_subcommand("latency", "One sequence at a time, in process, beside the floor");
  const auto bench = std::make_shared<LatencyBench>();
  command->add_option("--prompt-tokens", bench->prompt_tokens, "Tokens of the prompt [512]")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--output-tokens", bench->output_tokens, "Tokens to generate [128]")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--repeats", bench->repeats, "Runs, of which the median counts [3]")->check(CLI::Range(1, 1000));
  const auto flags = add_model_flags(*command, bench->as_json);
  command->callback([=, &status] {
    status = run(*flags, [&](const config::Config& config) { return bench_latency(*bench, config); });
  });
}

void add_throughput(CLI::App& group, int& status) {
  CLI::App* command = group.add_subcommand("throughput", "Many sequences at once, in process");
  const auto bench = std::make_shared<ThroughputBench>();
  command->add_option("--prompt-tokens", bench->prompt_tokens, "Tokens of each prompt [128]")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--output-tokens", bench->output_tokens, "Tokens to generate for each [64]")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--concurrency", bench->concurrency, "Sequences at once, one run each [1,4,16,64]")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  const auto flags = add_model_flags(*command, bench->as_json);
  command->callback([=, &status] {
    status = run(*flags, [&](const config::Config& config) { return bench_throughput(*bench, config); });
  });
}

void add_roofline(CLI::App& group, int& status) {
  CLI::App* command =
      group.add_subcommand("roofline", "Steps of a model, stage by stage, beside what the device's ceilings allow");
  const auto bench = std::make_shared<RooflineBench>();
  command->add_option("--sequences", bench->sequences, "Sequences that decode together, one table each [1,32,128]")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--rows", bench->rows,
                   "Rows of each sequence in a step; 2: a draft is verified, and the next one proposed where the model "
                   "has its layer [1]")
      ->check(CLI::Range(1, 8));
  command->add_option("--context", bench->context_tokens, "Tokens of each sequence before the step [512]")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--prefill", bench->prefill_tokens, "Tokens of a prompt in one step; 0: none [4096]")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--layers", bench->layers,
                      "A:B, layers A to B - 1 alone, with random hidden states: one stage of a pipeline");
  const auto flags = add_model_flags(*command, bench->as_json);
  command->callback([=, &status] {
    flags->prefer("engine.batch_tokens_max", std::to_string(std::max(512, bench->prefill_tokens)));
    status = run(*flags, [&](const config::Config& config) { return bench_roofline(*bench, config); });
  });
}

void add_load(CLI::App& group, int& status) {
  CLI::App* command = group.add_subcommand("load", "Load on any OpenAI-compatible URL, streamed");
  const auto bench = std::make_shared<LoadBench>();
  LoadOptions& load = bench->load;
  command->add_option("--url", load.url, "Server [http://127.0.0.1:8000/v1]");
  command->add_option("--model-name", load.model, "Model to ask for [the first it offers]");
  command->add_option("--api-key", load.api_key, "Key for the server");
  auto* rate = command->add_option("--rate", load.rate_per_s,
                                   "Requests a second, arriving at random (Poisson) whatever the server does");
  auto* clients =
      command->add_option("--clients", load.clients, "Instead: so many clients, each waiting for its answer [1]");
  auto* trace = command->add_option("--trace", bench->trace_file,
                                    "Instead: a file of {\"at_s\", \"prompt\", \"max_tokens\"}, one a line");
  rate->check(CLI::PositiveNumber)->excludes(clients, trace);
  clients->check(CLI::Range(1, 1 << 16))->excludes(trace);
  command->add_option("--duration", bench->duration_s, "Seconds of arrivals [30]")->check(CLI::PositiveNumber);
  command->add_option("--requests", load.requests_max, "Requests at most")->check(CLI::PositiveNumber);
  command->add_option("--prompts", bench->prompts_file, "File of prompts, one a line, taken in turn");
  command->add_option("--max-tokens", load.max_tokens, "Output tokens at most [32]")->check(CLI::Range(1, 1 << 20));
  command->add_option("--temperature", load.temperature, "0: greedy [0]")->check(CLI::Range(0.0, 2.0));
  command
      ->add_option("--objective-first-token", bench->ttft_objective_s,
                   "Seconds to the first token for a good request [1]")
      ->check(CLI::PositiveNumber);
  command->add_option("--objective-between-tokens", bench->itl_objective_s, "Mean seconds between its tokens [0.1]")
      ->check(CLI::PositiveNumber);
  command->add_option("--seed", load.seed, "Of arrivals and prompts [1]");
  command->add_option("--tls-ca", load.tls_ca_file, "PEM file of the authority that signed the server's certificate");
  command->add_flag("--json", bench->as_json, "Print JSON");
  command->callback([bench, &status] {
    const auto done = bench_load(*bench);
    status = done.ok() ? 0 : fail(done.error());
  });
}

}  // namespace

void add_fusion(CLI::App& group, int& status) {
  CLI::App* command = group.add_subcommand("fusion", "An encoder or vision model with each fusion on and off");
  const auto bench = std::make_shared<FusionBench>();
  command->add_option("--inputs", bench->inputs, "Texts or images of the batch [8]")->check(CLI::Range(1, 256));
  command->add_option("--tokens", bench->tokens, "Tokens of each text [165]")->check(CLI::Range(1, 1 << 16));
  command->add_option("--repeats", bench->repeats, "Runs, of which the best counts [5]")->check(CLI::Range(1, 1000));
  const auto flags = ConfigFlags::add(*command, {"model", "hardware", "log"});
  command->callback([=, &status] {
    status = run(*flags, [&](const config::Config& config) { return bench_fusion(*bench, config); });
  });
}

void add_bench(CLI::App& program, int& status) {
  CLI::App* group = program.add_subcommand("bench", "Measure a model, a shape or a server");
  group->require_subcommand(1);
  add_latency(*group, status);
  add_throughput(*group, status);
  add_roofline(*group, status);
  add_fusion(*group, status);
  add_load(*group, status);
}

}  // namespace spillway::apps
