// GatewayOptions from a configuration: the scalars of the option table and the list gateway.upstreams. Keys of
// providers are read here, from the environment or files, so that no configuration file has to hold them.
#pragma once

#include "base/result.h"
#include "config/config.h"
#include "gateway/options.h"

namespace spillway::gateway {

// Whether the configuration has a gateway at all.
bool has_gateway(const config::Config& config);

// Every problem, one a line, each with its file, line and column.
Result<GatewayOptions> gateway_options(const config::Config& config);

// What "env:NAME" or "file:PATH" holds; empty for an empty reference. key: the option, for the message.
Result<std::string> secret(std::string_view reference, std::string_view key);

}  // namespace spillway::gateway
