// spillway metrics docs
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/command.h"
#include "apps/grpc_front.h"
#include "metrics/docs.h"

namespace spillway::apps {

void add_metrics(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("metrics", "Document the metrics");
  command->require_subcommand(1);
  CLI::App* docs = command->add_subcommand("docs", "The table of metrics as Markdown (docs/metrics.md)");
  docs->callback([&status] {
    const Status loaded = load_grpc();  // whose metrics belong to the list
    if (!loaded.ok()) {
      status = fail(loaded.error());
      return;
    }
    std::fputs(metrics::print_markdown().c_str(), stdout);
  });
}

}  // namespace spillway::apps
