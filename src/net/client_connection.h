// One connection of the client to one origin: connect, write all, read some, each with a deadline. Owned by whoever has
// a request under way, or by the pool in between; one operation at a time, on the client's executor.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/byte_inbox.h"
#include "net/tls_context.h"
#include "net/transport.h"
#include "net/url.h"
#include "net/wait_point.h"

namespace spillway::net {

class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  ClientConnection(asio::any_io_executor executor, std::string origin);

  using Endpoints = std::vector<asio::ip::tcp::endpoint>;

  asio::awaitable<Status> connect(const Url& url, const TlsContext& tls, bool verify, TimePoint deadline);
  // To addresses already known, in turn; none of the system's resolver is used.
  asio::awaitable<Status> connect_to(Endpoints endpoints, const Url& url, const TlsContext& tls, bool verify,
                                     TimePoint deadline);
  // What goes without waiting; nothing while some is left for write().
  std::optional<Status> write_at_once(WriteBuffers& buffers);
  asio::awaitable<Status> write(WriteBuffers buffers, TimePoint deadline);
  // The number of new bytes in inbox(); zero when the server closed.
  asio::awaitable<Result<size_t>> read(TimePoint deadline);

  ByteInbox& inbox() { return inbox_; }
  const std::string& origin() const { return origin_; }
  bool still_open();  // for a pooled connection: neither closed nor with bytes nobody asked for
  // An operation under way ends with an error.
  void close() { transport_.close(); }

 private:
  asio::awaitable<Status> secure(const Url& url, const TlsContext& tls, bool verify, TimePoint deadline);
  asio::awaitable<Status> finish(std::string_view what, TimePoint deadline);
  Error time_ran_out(std::string_view what) const;
  Status ended(std::string_view what);  // the operation that is over
  void begin();
  void on_done(IoError error, size_t count);

  const std::string origin_;
  asio::ip::tcp::resolver resolver_;
  Transport transport_;
  WaitPoint point_;
  ByteInbox inbox_;
  bool pending_ = false;
  bool waiting_ = false;
  IoError error_;
  size_t count_ = 0;
};

}  // namespace spillway::net
