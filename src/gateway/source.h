// Source: where the bytes of one attempt's answer come from: an HTTP exchange with another server, or the models of
// this process through the same calls. Owned by the attempt, on its lane's thread; one step at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/lane.h"
#include "gateway/upstream.h"
#include "net/client_exchange.h"
#include "net/http_server.h"

namespace spillway::gateway {

// The request as an upstream is to get it.
struct OutgoingRequest {
  const char* method = "POST";
  std::string path;  // after the upstream's base
  net::Headers headers;
  std::string_view body;  // outlives the source
};

class Source {
 public:
  virtual ~Source() = default;
  // Sends the request and reads the head of its answer.
  virtual asio::awaitable<Status> open(TimePoint connect_deadline, TimePoint deadline) = 0;
  virtual int status() const = 0;
  virtual const net::Headers& headers() const = 0;
  // The next piece, valid until the next call; empty at the end. At the deadline the source is of no use any more.
  virtual asio::awaitable<Result<std::string_view>> read(TimePoint deadline) = 0;
  // The step under way ends at once, with an error; the other side learns that nobody listens.
  virtual void cancel() = 0;
};

// Over HTTP. A kept-alive connection that turns out closed before any byte of an answer is replaced by a fresh one.
std::unique_ptr<Source> remote_source(std::shared_ptr<Lane> lane, std::shared_ptr<const Upstream> upstream,
                                      net::TlsContext tls, OutgoingRequest request, uint64_t body_bytes_max);

// A handler in this process: it writes, the source reads, nothing is copied between them.
std::unique_ptr<Source> local_source(std::shared_ptr<Lane> lane, net::Handler handler, OutgoingRequest request);

}  // namespace spillway::gateway
