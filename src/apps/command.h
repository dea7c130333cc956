// The commands of the program. Each add_ function declares one with its options; when it is the one asked for, it runs
// and leaves its exit status. One file a command.
#pragma once

#include <string>

#include "base/result.h"

namespace CLI {
class App;
}

namespace spillway::apps {

void add_serve(CLI::App& program, int& status);
void add_chat(CLI::App& program, int& status);
void add_eval(CLI::App& program, int& status);
void add_bench(CLI::App& program, int& status);
void add_doctor(CLI::App& program, int& status);
void add_verify(CLI::App& program, int& status);
void add_config(CLI::App& program, int& status);
void add_metrics(CLI::App& program, int& status);
void add_route(CLI::App& program, int& status);
void add_top(CLI::App& program, int& status);
void add_trace(CLI::App& program, int& status);

inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;

// Prints the error to stderr; returns kFailed.
int fail(const Error& error);

// The status that a command ended with, or fail() of its error.
int exit_status(const Result<int>& ended);

}  // namespace spillway::apps
