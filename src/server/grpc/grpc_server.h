// GrpcServer: the gRPC front end of a Server: KServe's GRPCInferenceService with Triton's extensions, chat, health and
// reflection. It shares the HTTP front end's models, keys, bounds and drain. Owned by the program, ends before the
// Server. Calls run on gRPC's threads and a few of its own; what a call means is in the services.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "server/server.h"

namespace spillway::server {

struct GrpcOptions {
  std::string address = "0.0.0.0";
  uint16_t port = 50051;             // 0: any free one
  std::string tls_certificate_file;  // PEM chain; with the key, TLS is on
  std::string tls_key_file;
  uint64_t message_bytes_max = 32 << 20;
  uint64_t buffers_bytes_max = 512 << 20;  // of all messages being received and sent together
  int calls_max = 4096;                    // under way on one connection
  int threads = 2;                         // that finish answers, and as many that prepare long requests
};

class GrpcServer {
 public:
  // Listens when it returns. Calls before Server::serve() are refused as UNAVAILABLE, as over HTTP.
  static Result<std::unique_ptr<GrpcServer>> start(GrpcOptions options, Server& server);
  virtual ~GrpcServer() = default;  // cuts what is still open

  virtual uint16_t port() const = 0;

  // Tells health checks that it stops, takes no new calls, and returns when the open ones have ended; those left at the
  // deadline are cut and false comes. Server::drain() is to go before or beside it.
  virtual bool drain(TimePoint deadline) = 0;
};

}  // namespace spillway::server
