// spillway config print|check|docs
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/command.h"
#include "apps/options.h"
#include "config/render.h"
#include "gateway/configuration.h"

namespace spillway::apps {
namespace {

// What `serve` would refuse of the file, as far as it can be told without the models and the ports.
Status check_file(const std::string& file) {
  config::Config config;
  SW_TRY(config.load_file(file));
  SW_TRY(config.each_model());
  if (gateway::has_gateway(config)) SW_TRY(gateway::gateway_options(config));
  if (config.text("tls.cert").empty() != config.text("tls.key").empty())
    return invalid("tls.cert and tls.key: expected both or neither, found only one of them").in(file);
  return {};
}

int check(const std::string& file) {
  if (const Status status = check_file(file); !status.ok()) return fail(status.error());
  std::printf("%s: good\n", file.c_str());
  return 0;
}

}  // namespace

void add_config(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("config", "Show, check and document the options");
  command->require_subcommand(1);

  CLI::App* print = command->add_subcommand("print", "The resolved options and where each came from, as YAML");
  const auto flags = ConfigFlags::add(*print, every_section());
  print->callback([flags, &status] {
    const auto config = flags->resolve();
    status = config.ok() ? 0 : fail(config.error());
    if (config.ok()) std::fputs(config::print_yaml(*config).c_str(), stdout);
  });

  CLI::App* checking = command->add_subcommand("check", "Check a configuration file");
  const auto file = std::make_shared<std::string>();
  checking->add_option("file,--config", *file, "YAML file")->required();
  checking->callback([file, &status] { status = check(*file); });

  CLI::App* docs = command->add_subcommand("docs", "The table of options as Markdown (docs/configuration.md)");
  docs->callback([] { std::fputs(config::print_markdown().c_str(), stdout); });
}

}  // namespace spillway::apps
