#include "gateway/access_log.h"

#include <cerrno>
#include <cstring>

#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

metrics::Counter lost{"spillway_gateway_access_log_lost_total", "Lines of the access log that could not be written."};

}  // namespace

Result<std::unique_ptr<AccessLog>> AccessLog::open(const std::string& path) {
  if (path.empty()) return std::unique_ptr<AccessLog>(new AccessLog(nullptr));
  if (path == "-") return std::unique_ptr<AccessLog>(new AccessLog(stdout));
  std::FILE* file = std::fopen(path.c_str(), "ae");
  if (file == nullptr) return invalid("gateway.access_log: " + path + ": " + std::strerror(errno));
  return std::unique_ptr<AccessLog>(new AccessLog(file));
}

AccessLog::~AccessLog() {
  if (file_ != nullptr && file_ != stdout) std::fclose(file_);
}

void AccessLog::write(std::string_view line) {
  if (file_ == nullptr) return;
  std::lock_guard lock(mutex_);
  const bool whole = std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fputc('\n', file_) != EOF;
  if (!whole || std::fflush(file_) != 0) {
    std::clearerr(file_);
    lost->add();
  }
}

}  // namespace spillway::gateway
