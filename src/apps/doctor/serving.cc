// Whether a server could run here: ports, limits, keys and certificates.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "apps/doctor/finding.h"
#include "apps/local_model.h"
#include "apps/system.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;

Finding check_port(const std::string& host, int port, const char* flag) {
  const int error = port_error(host, port);
  if (error == 0) return {Level::kGood, "port", fmt::format("{} {}:{} is free", flag, host, port), ""};
  const std::string what = fmt::format("{} {}:{}: {}", flag, host, port, std::strerror(error));
  if (error == EADDRINUSE)
    return {Level::kBad, "port", what,
            fmt::format("stop what listens there (ss -ltnp 'sport = {}'), or pass --{} with another", port, flag)};
  if (error == EACCES)
    return {Level::kBad, "port", what, "take a port above 1023, or give the program CAP_NET_BIND_SERVICE"};
  return {Level::kBad, "port", what, "pass an address of this machine with --host; 127.0.0.1 and 0.0.0.0 always are"};
}

Finding check_readable(const char* key, const std::string& path) {
  if (access(path.c_str(), R_OK) == 0) return {Level::kGood, "files", fmt::format("{} {} can be read", key, path), ""};
  return {Level::kBad, "files", fmt::format("{} {}: {}", key, path, std::strerror(errno)),
          "correct the path or its permissions"};
}

}  // namespace

Findings check_ports(const config::Config& config) {
  const std::string host = config.text("network.host") == "localhost" ? "127.0.0.1" : config.text("network.host");
  Findings findings;
  if (const auto port = config.integer("network.port"); port > 0)
    findings.push_back(check_port(host, int(port), "port"));
  // /metrics is on the HTTP port too, and gRPC is left out: a default of these that is taken stops nothing.
  const auto beside = [&](const config::Key<config::Type::kInt>& key, const char* flag) {
    if (config.integer(key) <= 0) return;
    Finding finding = check_port(host, int(config.integer(key)), flag);
    if (finding.level == Level::kBad && !config.is_explicit(key)) finding.level = Level::kWarning;
    findings.push_back(std::move(finding));
  };
  beside("network.metrics_port", "metrics-port");
  if (!names_no_model(config) || config.is_explicit(config::Key<config::Type::kInt>("network.grpc_port")))
    beside("network.grpc_port", "grpc-port");
  return findings;
}

Findings check_limits(const config::Config& config) {
  constexpr int64_t kOwnFiles = 64;  // log, model, threads' events
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const int64_t needed = config.integer("limits.connections") + kOwnFiles;
  if (limit.rlim_cur == RLIM_INFINITY || int64_t(limit.rlim_cur) >= needed) {
    return {{Level::kGood, "open files", fmt::format("{} allowed, {} needed at most", limit.rlim_cur, needed), ""}};
  }
  return {{Level::kWarning, "open files",
           fmt::format("{} allowed, but limits.connections needs {}", limit.rlim_cur, needed),
           fmt::format("ulimit -n {} (systemd: LimitNOFILE={}), or lower limits.connections", needed, needed)}};
}

Findings check_security(const config::Config& config) {
  Findings findings;
  const std::string& host = config.text("network.host");
  const std::string& keys_file = config.text("server.api_keys_file");
  const bool local = host.starts_with("127.") || host == "::1" || host == "localhost";
  if (!local && config.strings("server.api_keys").empty() && keys_file.empty()) {
    findings.push_back({Level::kWarning, "access",
                        fmt::format("{} is reachable from outside and no API key is asked for", host),
                        "set server.api_keys_file, or listen on 127.0.0.1 behind a proxy that authenticates"});
  }
  if (config.text("tls.cert").empty() != config.text("tls.key").empty()) {
    findings.push_back({Level::kBad, "TLS", "only one of tls.cert and tls.key is given", "give both or neither"});
  }
  if (!config.text("tls.cert").empty()) findings.push_back(check_readable("tls.cert", config.text("tls.cert")));
  if (!config.text("tls.key").empty()) findings.push_back(check_readable("tls.key", config.text("tls.key")));
  if (keys_file.empty()) return findings;
  findings.push_back(check_readable("server.api_keys_file", keys_file));
  struct stat status {};
  if (stat(keys_file.c_str(), &status) == 0 && (status.st_mode & S_IROTH)) {
    findings.push_back(
        {Level::kWarning, "access", keys_file + " can be read by everyone on this machine", "chmod 600 " + keys_file});
  }
  return findings;
}

}  // namespace spillway::apps
