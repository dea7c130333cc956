#include "net/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <filesystem>
#include <thread>

#include "net/http_server.h"
#include "net/sse.h"
#include "net/test_certificate.h"

namespace spillway::net {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

asio::awaitable<void> serve(HttpRequest request, ResponseWriter& out) {
  if (request.path == "/stream") {
    co_await out.start_stream(200, Headers::of("Content-Type", kSseContentType));
    for (int i = 0; i < 100; ++i) {
      std::string piece;
      append_sse_event(piece, "event " + std::to_string(i));
      if (!co_await out.write(piece)) co_return;
    }
    co_await out.end();
  } else if (request.path == "/cut") {
    co_await out.start_stream(200, {});
    co_await out.write("some");
  } else if (request.path == "/refuse") {
    co_await out.send(429, Headers::of("Retry-After", "3"), "busy");
  } else {
    co_await out.send(200, {}, request.method + " " + request.target + " " + request.body + " from " + request.peer);
  }
}

std::unique_ptr<HttpServer> start(HttpServerOptions options = {}) {
  options.address = "127.0.0.1";
  auto server = HttpServer::start(std::move(options), serve);
  EXPECT_TRUE(server.ok()) << server.error().message;
  return std::move(server).value();
}

ClientRequest request_to(const HttpServer& server, const std::string& path, const char* scheme = "http") {
  ClientRequest request;
  request.url = *parse_url(std::string(scheme) + "://127.0.0.1:" + std::to_string(server.port()) + path);
  return request;
}

TEST(HttpClient, Fetches) {
  auto server = start();
  ClientRequest request = request_to(*server, "/echo?x=1");
  request.method = "POST";
  request.body = std::string(200'000, 'b');
  const auto response = fetch_blocking(request);
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->status, 200);
  EXPECT_THAT(response->body, testing::StartsWith("POST /echo?x=1 " + request.body + " from 127.0.0.1:"));
}

TEST(HttpClient, StreamsEvents) {
  auto server = start();
  SseParser parser;
  std::vector<std::string> events;
  const auto response = fetch_blocking(request_to(*server, "/stream"), {}, [&](std::string_view piece) {
    return parser.feed(piece, [&](const SseEvent& event) { events.push_back(event.data); }).ok();
  });
  ASSERT_TRUE(response.ok()) << response.error().message;
  ASSERT_EQ(events.size(), 100u);
  EXPECT_EQ(events[99], "event 99");
}

TEST(HttpClient, StatusesAreNotErrorsButCutsAre) {
  auto server = start();
  int pieces = 0;
  const auto refused =
      fetch_blocking(request_to(*server, "/refuse"), {}, [&](std::string_view) { return ++pieces > 0; });
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->headers.find("retry-after"), "3");
  EXPECT_EQ(refused->body, "busy");
  EXPECT_EQ(pieces, 0);
  const auto cut = fetch_blocking(request_to(*server, "/cut"));
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(cut.error().message, HasSubstr("closed in the middle"));
}

TEST(HttpClient, ErrorsSayWhatFailed) {
  auto server = start();
  ClientRequest gone = request_to(*server, "/");
  server.reset();
  const auto refused = fetch_blocking(gone);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("cannot connect"));
  ClientRequest broken = gone;
  broken.headers.add("X", "a\r\nb");
  EXPECT_EQ(fetch_blocking(broken).error().code, ErrorCode::kInvalidArgument);
}

TEST(HttpClient, ASilentServerIsADeadline) {
  asio::io_context context;
  asio::ip::tcp::acceptor silent(context, {asio::ip::make_address("127.0.0.1"), 0});
  ClientRequest request;
  request.url = *parse_url("http://127.0.0.1:" + std::to_string(silent.local_endpoint().port()));
  request.response_timeout = 50ms;
  const auto response = fetch_blocking(request);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().code, ErrorCode::kDeadlineExceeded);
}

TEST(HttpClient, KeepsConnectionsAliveAndNoticesClosedOnes) {
  auto server = start();
  asio::io_context context;
  auto client = HttpClient::create(context.get_executor());
  ASSERT_TRUE(client.ok());
  std::vector<std::string> bodies;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 3; ++i) {
          auto response = co_await (*client)->fetch(request_to(*server, "/"));
          EXPECT_TRUE(response.ok());
          bodies.push_back(response.ok() ? response->body : "");
        }
        server->drain(std::chrono::steady_clock::now() + 10s);
        HttpServerOptions options;
        options.port = server->port();
        server = start(options);
        auto response = co_await (*client)->fetch(request_to(*server, "/"));
        EXPECT_TRUE(response.ok());
      },
      [&](std::exception_ptr failure) {
        EXPECT_FALSE(failure);
        context.stop();
      });
  context.run();
  ASSERT_EQ(bodies.size(), 3u);
  EXPECT_EQ(bodies[0], bodies[2]) << "the peer's port tells that the connection is another";
}

class Tls : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("spillway_tls_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    certificate_ = (folder_ / "certificate.pem").string();
    key_ = (folder_ / "key.pem").string();
    write_test_certificate(certificate_, key_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  HttpServerOptions options() const {
    HttpServerOptions options;
    options.tls_certificate_file = certificate_;
    options.tls_key_file = key_;
    return options;
  }

  std::filesystem::path folder_;
  std::string certificate_, key_;
};

TEST_F(Tls, WorksWithTheRightRootsOnly) {
  auto server = start(options());
  ClientRequest request = request_to(*server, "/echo", "https");
  request.method = "POST";
  request.body = std::string(300'000, 's');
  ClientOptions trusting;
  trusting.tls_ca_file = certificate_;
  const auto good = fetch_blocking(request, trusting);
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_THAT(good->body, HasSubstr(request.body));

  const auto stranger = fetch_blocking(request);
  ASSERT_FALSE(stranger.ok());
  EXPECT_THAT(stranger.error().message, HasSubstr("certificate: self"));

  request.url.host = "localhost";  // the certificate is for 127.0.0.1 only
  const auto other_name = fetch_blocking(request, trusting);
  ASSERT_FALSE(other_name.ok());
  EXPECT_THAT(other_name.error().message, HasSubstr("TLS"));

  ClientOptions careless;
  careless.tls_verify = false;
  EXPECT_TRUE(fetch_blocking(request, careless).ok());
}

TEST_F(Tls, StreamsAndDrains) {
  auto server = start(options());
  ClientOptions trusting;
  trusting.tls_ca_file = certificate_;
  const auto streamed = fetch_blocking(request_to(*server, "/stream", "https"), trusting);
  ASSERT_TRUE(streamed.ok()) << streamed.error().message;
  EXPECT_THAT(streamed->body, testing::EndsWith("data: event 99\n\n"));
  EXPECT_TRUE(server->drain(std::chrono::steady_clock::now() + 10s));
}

TEST_F(Tls, PlainTextToATlsPortAndBadFilesFail) {
  auto server = start(options());
  EXPECT_FALSE(fetch_blocking(request_to(*server, "/")).ok());
  HttpServerOptions bad = options();
  bad.tls_key_file = certificate_;
  EXPECT_FALSE(HttpServer::start(bad, serve).ok());
  bad.tls_key_file.clear();
  EXPECT_FALSE(HttpServer::start(bad, serve).ok());
}

}  // namespace
}  // namespace spillway::net
