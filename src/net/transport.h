// One TCP connection, plain or inside TLS, with the same calls for both. Owned by a connection, on its executor.
#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <memory>
#include <string_view>
#include <utility>

namespace spillway::net {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using IoError = boost::system::error_code;

// Up to three pieces written by one call; empty ones are skipped.
using WriteBuffers = std::array<asio::const_buffer, 3>;

inline WriteBuffers pieces(std::string_view first, std::string_view second = {}, std::string_view third = {}) {
  return {asio::buffer(first), asio::buffer(second), asio::buffer(third)};
}

inline size_t bytes_in(const WriteBuffers& buffers) { return asio::buffer_size(buffers); }

inline void consume(WriteBuffers& buffers, size_t count) {
  for (auto& buffer : buffers) {
    const size_t part = std::min(count, buffer.size());
    buffer += part;
    count -= part;
  }
}

class Transport {
 public:
  explicit Transport(Tcp::socket socket) : socket_(std::move(socket)) {}

  void use_tls(asio::ssl::context& context) {
    tls_ = std::make_unique<asio::ssl::stream<Tcp::socket&>>(socket_, context);
    ::SSL_set_mode(tls_->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  }

  Tcp::socket& socket() { return socket_; }
  asio::ssl::stream<Tcp::socket&>* tls() { return tls_.get(); }

  template <class Token>
  auto async_read_some(asio::mutable_buffer into, Token&& token) {
    return tls_ ? tls_->async_read_some(into, std::forward<Token>(token))
                : socket_.async_read_some(into, std::forward<Token>(token));
  }

  template <class Token>
  auto async_write_some(const WriteBuffers& buffers, Token&& token) {
    return tls_ ? tls_->async_write_some(buffers, std::forward<Token>(token))
                : socket_.async_write_some(buffers, std::forward<Token>(token));
  }

  // What the socket takes at once, without waiting (zero when full). TLS writes are always asynchronous.
  size_t write_now(const WriteBuffers& buffers, IoError& error) {
    if (tls_) return 0;
    const size_t count = socket_.write_some(buffers, error);
    if (error == asio::error::would_block) error = {};
    return count;
  }

  void close() {
    IoError ignored;
    socket_.close(ignored);
  }

 private:
  Tcp::socket socket_;
  std::unique_ptr<asio::ssl::stream<Tcp::socket&>> tls_;
};

}  // namespace spillway::net
