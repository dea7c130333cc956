// The gRPC front end as the program sees it: a module loaded when it is wanted, from beside the program or from
// ../lib/spillway of it. Once loaded it stays until the process ends.
#pragma once

#include "server/grpc/grpc_server.h"

namespace spillway::apps {

// Loads the module, so that its metrics are known.
Status load_grpc();

// GrpcServer::start of the module.
Result<std::unique_ptr<server::GrpcServer>> start_grpc(const server::GrpcOptions& options, server::Server& server);

}  // namespace spillway::apps
