// docs/metrics.md, printed from the registry (`spillway metrics docs`).
#pragma once

#include <string>

namespace spillway::metrics {

std::string print_markdown();

}  // namespace spillway::metrics
