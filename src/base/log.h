// The process-wide log, over spdlog: one line an event, to stderr. Any thread.
#pragma once

#include <spdlog/spdlog.h>

#include "base/result.h"

namespace spillway {

// level: trace|debug|info|warn|error|off. format: text|json (one JSON object a line).
Status configure_log(const std::string& level, const std::string& format);

}  // namespace spillway

#define SW_DEBUG(...) SPDLOG_DEBUG(__VA_ARGS__)
#define SW_INFO(...) ::spdlog::info(__VA_ARGS__)
#define SW_WARN(...) ::spdlog::warn(__VA_ARGS__)
#define SW_ERROR(...) ::spdlog::error(__VA_ARGS__)
