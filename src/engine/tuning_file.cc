#include "engine/tuning_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "base/log.h"

namespace spillway::engine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "spillway tuning 1";

}  // namespace

TuningFile::TuningFile(const std::string& folder, const std::string& model, std::string identity)
    : path_(folder.empty() ? "" : folder + fmt::format("/tuning-{:016x}.txt", std::hash<std::string>{}(model))),
      identity_(std::move(identity)) {}

std::string TuningFile::read() const {
  if (path_.empty()) return "";
  std::ifstream file(path_);
  if (!file) return "";
  std::string kind, identity;
  std::getline(file, kind);
  std::getline(file, identity);
  std::ostringstream rest;
  rest << file.rdbuf();
  if (file && kind == kKind && identity == identity_) return rest.str();
  SW_INFO("{}: learned on another device, driver, model or build: deleted", path_);
  std::error_code error;
  fs::remove(path_, error);
  return "";
}

void TuningFile::write(const std::string& learned) const {
  if (path_.empty()) return;
  std::error_code error;
  fs::create_directories(fs::path(path_).parent_path(), error);
  const std::string part = fmt::format("{}.{}", path_, getpid());
  std::ofstream file(part, std::ios::trunc);
  file << kKind << '\n' << identity_ << '\n' << learned;
  file.close();
  if (file) fs::rename(part, path_, error);
  if (!file || error) {
    SW_WARN("{}: what was learned about kernels could not be written: {}", path_, error ? error.message() : "no room");
    fs::remove(part, error);
  }
}

std::string driver_identity() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string line;
  std::getline(file, line);
  return line;
}

std::string build_identity() {
  std::error_code error;
  const auto size = fs::file_size("/proc/self/exe", error);
  const auto time = fs::last_write_time("/proc/self/exe", error);
  return fmt::format("build {}.{}", size, time.time_since_epoch().count());
}

}  // namespace spillway::engine
