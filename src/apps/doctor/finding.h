// A Finding: one thing the doctor looked at. The checks are plain functions of what they read from the system; they
// never change anything.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"

namespace spillway::apps {

struct Finding {
  enum class Level { kGood, kWarning, kBad } level = Level::kGood;
  std::string subject;  // "CPU"
  std::string what;     // what was found
  std::string mend;     // what to do about it; empty when good
};

using Findings = std::vector<Finding>;

Findings check_cpu();
Findings check_memory(const config::Config& config);
int64_t stored_bytes(const config::Config& config);  // of all models' weights that lie on this machine
Findings check_model(const config::Config& config);
Findings check_cache(const config::Config& config);
Findings check_gpu(const config::Config& config);
Findings check_ports(const config::Config& config);
Findings check_limits(const config::Config& config);
Findings check_security(const config::Config& config);

// One line a finding and one for its remedy, coloured for a terminal.
std::string render(const Findings& findings, bool colour);

}  // namespace spillway::apps
