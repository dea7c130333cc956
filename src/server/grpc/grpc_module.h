// What the gRPC front end's module offers to the program that loads it (docs/adr/0004): two names, looked up by dlsym.
// The module is server/grpc with gRPC itself; everything else it takes from the program, whose symbols it is bound to
// when it is loaded. Not for other callers: they link server/grpc and use GrpcServer.
#pragma once

#include "server/grpc/grpc_server.h"

extern "C" {

// The version of the program it was built with; another program must not load it.
using SpillwayGrpcVersion = const char*();
// GrpcServer::start, the answer put into *started.
using SpillwayGrpcStart = void(const spillway::server::GrpcOptions& options, spillway::server::Server& server,
                               spillway::Result<std::unique_ptr<spillway::server::GrpcServer>>* started);

SpillwayGrpcVersion spillway_grpc_version;
SpillwayGrpcStart spillway_grpc_start;
}
