// A blocking socket for tests: sends exact bytes and shows exact bytes, which a real client would not.
#pragma once

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <string_view>

namespace spillway::net {

class RawClient {
 public:
  explicit RawClient(uint16_t port, const char* address = "127.0.0.1") {
    socket_.connect({boost::asio::ip::make_address(address), port});
    timeval patience{20, 0};
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }

  bool send(std::string_view bytes) {
    boost::system::error_code error;
    boost::asio::write(socket_, boost::asio::buffer(bytes), error);
    return !error;
  }

  // Whether anything has come that was not read.
  bool has_answer() { return !held_.empty() || socket_.available() > 0; }

  // Reads until the text is there (and returns all up to its end), or the server closes (and returns all).
  std::string read_until(std::string_view text) {
    for (;;) {
      const size_t at = held_.find(text);
      if (at != std::string::npos) {
        const std::string out = held_.substr(0, at + text.size());
        held_.erase(0, out.size());
        return out;
      }
      if (!read_some()) return std::exchange(held_, {});
    }
  }

  std::string read_bytes(size_t count) {
    while (held_.size() < count && read_some()) {
    }
    const std::string out = held_.substr(0, count);
    held_.erase(0, out.size());
    return out;
  }

  std::string read_to_close() {
    while (read_some()) {
    }
    return std::exchange(held_, {});
  }

  // Head and body of a response with Content-Length.
  std::string read_response() {
    const std::string head = read_until("\r\n\r\n");
    const size_t at = head.find("Content-Length: ");
    return at == std::string::npos ? head : head + read_bytes(size_t(std::stoul(head.substr(at + 16))));
  }

  bool reset() const { return reset_; }
  boost::asio::ip::tcp::socket& socket() { return socket_; }

 private:
  bool read_some() {
    char bytes[4096];
    const ssize_t count = ::recv(socket_.native_handle(), bytes, sizeof bytes, 0);
    if (count > 0) held_.append(bytes, size_t(count));
    if (count < 0) reset_ = true;
    return count > 0;
  }

  boost::asio::io_context context_;
  boost::asio::ip::tcp::socket socket_{context_};
  std::string held_;
  bool reset_ = false;
};

}  // namespace spillway::net
