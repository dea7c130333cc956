// spillway verify: a model's or tokenizer's outputs against expected ones, for whoever ports a model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "apps/builtin_model.h"
#include "apps/command.h"
#include "apps/local_model.h"
#include "apps/options.h"
#include "apps/table.h"
#include "models/verify.h"
#include "text/tokenizer_verify.h"

namespace spillway::apps {
namespace {

struct VerifyFiles {
  std::string tokenizer;
  std::string expected;
  double tolerance = 0;
};

Result<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected a readable file, found none");
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

Result<bool> verify_model(const VerifyFiles& files, const config::Config& config) {
  SW_TRY(check_model_options(config));
  models::VerifyOptions options;
  options.expected_path = files.expected;
  options.tolerance = files.tolerance;
  std::optional<MemoryFolder> builtin;
  options.load.path = config.text("model.path");
  if (options.load.path == "builtin") {
    SW_ASSIGN(MemoryFolder folder, builtin_folder());
    builtin.emplace(std::move(folder));
    options.load.path = builtin->path();
  }
  SW_ASSIGN(options.load.precision, models::parse_precision(config.text("model.precision")));
  options.load.threads = int(config.integer("hardware.threads"));
  SW_ASSIGN(options.load.device, chosen_device(config));
  SW_ASSIGN(const models::VerifyReport report, models::verify(options));
  Table table({"output", "shape", "largest error", "relative", "median relative", "least cosine", "allowed", ""});
  for (const auto& row : report.rows) {
    table.add({row.name, row.shape, fmt::format("{:.3g}", row.max_abs), fmt::format("{:.3g}", row.max_rel),
               fmt::format("{:.3g}", row.median_rel), fmt::format("{:.6f}", row.cosine),
               fmt::format("{:.3g}", row.tolerance), row.passed ? "ok" : "WRONG"});
  }
  std::printf("%s, %s\n\n%s", report.architecture.c_str(), report.precision.c_str(), table.render().c_str());
  return report.passed();
}

Result<bool> verify_tokenizer(const VerifyFiles& files) {
  SW_ASSIGN(const std::string tokenizer, read_file(files.tokenizer));
  SW_ASSIGN(const std::string expected, read_file(files.expected));
  SW_ASSIGN(const text::TokenizerReport report, text::verify_tokenizer(tokenizer, expected));
  for (const auto& one : report.cases) {
    if (one.failures.empty()) continue;
    std::printf("WRONG  %s\n", one.text.c_str());
    for (const auto& failure : one.failures) std::printf("       %s\n", failure.c_str());
  }
  std::printf("%d texts, %d checks, %d texts wrong\n", int(report.cases.size()), report.checks, report.failed_cases());
  return report.failed_cases() == 0;
}

}  // namespace

void add_verify(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("verify", "Compare a model's or tokenizer's outputs with expected ones");
  const auto files = std::make_shared<VerifyFiles>();
  command
      ->add_option("--expected", files->expected,
                   "safetensors with input_ids and outputs by name; for a tokenizer JSON")
      ->required();
  command->add_option("--tokenizer", files->tokenizer, "Verify this tokenizer.json instead of a model");
  command->add_option("--tolerance", files->tolerance, "Relative error allowed; default: by precision");
  const auto flags = ConfigFlags::add(*command, {"model", "hardware", "log"});
  command->callback([files, flags, &status] {
    status = exit_status([&]() -> Result<int> {
      SW_ASSIGN(const auto config, flags->resolve());
      SW_ASSIGN(const bool passed, files->tokenizer.empty() ? verify_model(*files, config) : verify_tokenizer(*files));
      return passed ? 0 : kFailed;
    }());
  });
}

}  // namespace spillway::apps
