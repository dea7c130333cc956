#include "apps/grpc_front.h"

#include <dlfcn.h>

#include <filesystem>
#include <mutex>

#include "server/grpc/grpc_module.h"

namespace spillway::apps {
namespace {

constexpr const char* kModule = "spillway_grpc.so";

Error not_loaded(const std::string& why) {
  return Error{ErrorCode::kUnavailable, "gRPC: cannot load its module: " + why +
                                            " (it belongs beside the program; network.grpc_port: 0 does "
                                            "without)"};
}

Result<SpillwayGrpcStart*> load() {
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return not_loaded("/proc/self/exe: " + failed.message());
  const std::filesystem::path beside = program.parent_path() / kModule;
  const std::filesystem::path installed = program.parent_path().parent_path() / "lib" / "spillway" / kModule;
  const bool found = std::filesystem::exists(beside, failed);
  if (!found && !std::filesystem::exists(installed, failed)) {
    return not_loaded("expected " + beside.string() + " or " + installed.string() + ", found neither");
  }
  void* module = ::dlopen((found ? beside : installed).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) return not_loaded(::dlerror());
  auto* version = reinterpret_cast<SpillwayGrpcVersion*>(::dlsym(module, "spillway_grpc_version"));
  auto* start = reinterpret_cast<SpillwayGrpcStart*>(::dlsym(module, "spillway_grpc_start"));
  if (version == nullptr || start == nullptr) return not_loaded("it is not a module of Spillway");
  if (std::string_view(version()) != SPILLWAY_VERSION) {
    return not_loaded("expected version " SPILLWAY_VERSION ", found " + std::string(version()));
  }
  return start;
}

const Result<SpillwayGrpcStart*>& loaded() {
  static const Result<SpillwayGrpcStart*> once = load();
  return once;
}

}  // namespace

Status load_grpc() { return loaded().ok() ? Status() : Status(loaded().error()); }

Result<std::unique_ptr<server::GrpcServer>> start_grpc(const server::GrpcOptions& options, server::Server& server) {
  if (!loaded().ok()) return loaded().error();
  Result<std::unique_ptr<server::GrpcServer>> started = std::unique_ptr<server::GrpcServer>();
  loaded().value()(options, server, &started);
  return started;
}

}  // namespace spillway::apps
