// spillway doctor: what is wrong with this machine or this configuration, and how to mend it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "apps/command.h"
#include "apps/doctor/finding.h"
#include "apps/options.h"
#include "apps/system.h"

namespace spillway::apps {
namespace {

int examine(const config::Config& config) {
  Findings all;
  const auto add = [&](Findings findings) { std::move(findings.begin(), findings.end(), std::back_inserter(all)); };
  add(check_cpu());
  add(check_model(config));
  add(check_memory(config));
  add(check_cache(config));
  add(check_gpu(config));
  add(check_ports(config));
  add(check_limits(config));
  add(check_security(config));
  std::fputs(render(all, colours(STDOUT_FILENO)).c_str(), stdout);
  const auto count = [&](Finding::Level level) {
    return std::count_if(all.begin(), all.end(), [&](const Finding& finding) { return finding.level == level; });
  };
  const auto bad = count(Finding::Level::kBad), warnings = count(Finding::Level::kWarning);
  std::printf("%s: %d problems, %d warnings\n", bad ? "not ready" : "ready to serve", int(bad), int(warnings));
  return bad ? kFailed : 0;
}

}  // namespace

void add_doctor(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("doctor", "What is wrong with this machine and how to mend it");
  const auto flags = ConfigFlags::add(*command, every_section());
  command->callback([flags, &status] {
    const auto config = flags->resolve();
    status = config.ok() ? examine(*config) : fail(config.error());
  });
}

}  // namespace spillway::apps
