// The program: reads the command line and runs one command.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <string>

#include "apps/command.h"
#include "base/log.h"
#include "config/options.h"

namespace spillway::apps {

int fail(const Error& error) {
  std::fprintf(stderr, "spillway: %s\n", error.message.c_str());
  return kFailed;
}

int exit_status(const Result<int>& ended) { return ended.ok() ? *ended : fail(ended.error()); }

namespace {

// For a flag that was not understood, the one that was perhaps meant.
void suggest(int argc, char** argv, const std::string& refused) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument(argv[i], std::strcspn(argv[i], "="));
    if (!argument.starts_with("--") || refused.find(argument) == std::string::npos) continue;
    const std::string near = config::nearest_flag(argument.substr(2));
    if (!near.empty() && near != argument.substr(2))
      std::fprintf(stderr, "%s: did you mean --%s?\n", argument.c_str(), near.c_str());
  }
}

int unknown_command(const CLI::App& program, const char* name) {
  std::string known;
  for (const CLI::App* command : program.get_subcommands({})) {
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  std::fprintf(stderr, "spillway: unknown command \"%s\"; expected one of %s\n", name, known.c_str());
  return kUsage;
}

int run(int argc, char** argv) {
  CLI::App program("Spillway serves language models: DeepSeek-R1 and its distills, on this machine.", "spillway");
  program.set_version_flag("--version", "spillway " SPILLWAY_VERSION);
  program.require_subcommand(1);
  program.get_formatter()->column_width(34);
  int status = 0;
  add_serve(program, status);
  add_chat(program, status);
  add_eval(program, status);
  add_bench(program, status);
  add_doctor(program, status);
  add_verify(program, status);
  add_config(program, status);
  add_metrics(program, status);
  add_route(program, status);
  add_top(program, status);
  add_trace(program, status);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ExtrasError& error) {
    program.exit(error);
    suggest(argc, argv, error.what());
    return kUsage;
  } catch (const CLI::RequiredError& error) {
    if (argc > 1 && argv[1][0] != '-' && program.get_subcommands().empty()) return unknown_command(program, argv[1]);
    program.exit(error);
    return kUsage;
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kUsage;
  }
  return status;
}

}  // namespace
}  // namespace spillway::apps

int main(int argc, char** argv) {
  if (const auto log = spillway::configure_log("info", "text"); !log.ok()) return spillway::apps::fail(log.error());
  return spillway::apps::run(argc, argv);
}
