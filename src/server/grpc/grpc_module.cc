#include "server/grpc/grpc_module.h"

const char* spillway_grpc_version() { return SPILLWAY_VERSION; }

void spillway_grpc_start(const spillway::server::GrpcOptions& options, spillway::server::Server& server,
                         spillway::Result<std::unique_ptr<spillway::server::GrpcServer>>* started) {
  *started = spillway::server::GrpcServer::start(options, server);
}
