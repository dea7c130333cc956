#include "net/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "net/channel.h"
#include "net/test_raw_client.h"

namespace spillway::net {
namespace {

using namespace std::chrono_literals;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

asio::awaitable<void> echo(HttpRequest request, ResponseWriter& out) {
  const std::string body = request.method + " " + request.path + "?" + request.query + "|" + request.body;
  co_await out.send(200, Headers::of("Content-Type", "text/plain", "X-Request-Id", request.id), body);
}

std::unique_ptr<HttpServer> start(Handler handler, HttpServerOptions options = {}) {
  if (options.address == "0.0.0.0") options.address = "127.0.0.1";
  auto server = HttpServer::start(std::move(options), std::move(handler));
  EXPECT_TRUE(server.ok()) << server.error().message;
  return std::move(server).value();
}

constexpr const char* kGet = "GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\n\r\n";

TEST(HttpServer, AnswersAndKeepsAlive) {
  auto server = start(echo);
  RawClient client(server->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(kGet));
    const std::string response = client.read_response();
    EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(response, HasSubstr("\r\nDate: "));
    EXPECT_THAT(response, Not(HasSubstr("Connection: close")));
    EXPECT_THAT(response, EndsWith("\r\n\r\nGET /a b?x=1|"));
  }
  EXPECT_EQ(server->connections(), 1u);
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  auto server = start(echo);
  RawClient client(server->port());
  std::string all;
  for (int i = 0; i < 50; ++i) {
    const std::string body = "body " + std::to_string(i);
    all += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
  }
  ASSERT_TRUE(client.send(all));
  for (int i = 0; i < 50; ++i) {
    EXPECT_THAT(client.read_response(), EndsWith("POST /" + std::to_string(i) + "?|body " + std::to_string(i)));
  }
}

TEST(HttpServer, ByteByByteAndChunkedBodies) {
  auto server = start(echo);
  RawClient client(server->port());
  const std::string request =
      "\r\nPOST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n7\r\n, "
      "there\r\n0\r\nHost: "
      "evil\r\n\r\n";
  for (char byte : request) ASSERT_TRUE(client.send({&byte, 1}));
  EXPECT_THAT(client.read_response(), EndsWith("POST /c?|hello, there"));
  ASSERT_TRUE(client.send(request));
  EXPECT_THAT(client.read_response(), EndsWith("POST /c?|hello, there"));
  const std::string empty = "POST /n HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
  for (char byte : empty) ASSERT_TRUE(client.send({&byte, 1}));
  EXPECT_THAT(client.read_response(), EndsWith("POST /n?|"));
}

TEST(HttpServer, ExpectContinueIsToldToGoOn) {
  auto server = start(echo);
  RawClient client(server->port());
  client.send("POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ok");
  EXPECT_THAT(client.read_response(), EndsWith("POST /e?|ok"));
}

TEST(HttpServer, HeadHasNoBodyAndHttp10Closes) {
  auto server = start(echo);
  RawClient client(server->port());
  client.send("HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("Content-Length: 9\r\n"));
  client.send("GET /o HTTP/1.0\r\n\r\n");
  const std::string rest = client.read_to_close();
  EXPECT_THAT(rest, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(rest, HasSubstr("Connection: close"));
  EXPECT_THAT(rest, EndsWith("GET /o?|"));
}

struct Refusal {
  std::string request;
  int status;
};

class HttpRefusals : public testing::TestWithParam<Refusal> {};

TEST_P(HttpRefusals, AreAnsweredAndClosed) {
  HttpServerOptions options;
  options.header_bytes_max = 2048;
  options.body_bytes_max = 100;
  options.error_body = [](int status, std::string_view) {
    return ErrorBody{"application/x-test", "status " + std::to_string(status)};
  };
  auto server = start(echo, options);
  RawClient client(server->port());
  client.send(GetParam().request);
  const std::string response = client.read_to_close();
  const std::string status = std::to_string(GetParam().status);
  EXPECT_THAT(response, StartsWith("HTTP/1.1 " + status));
  EXPECT_THAT(response, HasSubstr("Content-Type: application/x-test\r\n"));
  EXPECT_THAT(response, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(response, EndsWith("\r\n\r\nstatus " + status));
  EXPECT_FALSE(client.reset());
}

const std::string kPost = "POST / HTTP/1.1\r\nHost: h\r\n";

INSTANTIATE_TEST_SUITE_P(
    All, HttpRefusals,
    testing::Values(Refusal{"nonsense\r\n\r\n", 400}, Refusal{"GET / HTTP/1.1\r\n\r\n", 400},
                    Refusal{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
                    Refusal{"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400},
                    Refusal{"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
                    Refusal{"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400},
                    Refusal{kPost + "Content-Length: 101\r\n\r\n" + std::string(101, 'x'), 413},
                    Refusal{kPost + "Content-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n", 413},
                    Refusal{kPost + "Transfer-Encoding: chunked\r\n\r\nff\r\n" + std::string(200, 'x'), 413},
                    Refusal{kPost + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
                    Refusal{kPost + "Transfer-Encoding: gzip\r\n\r\n", 501},
                    Refusal{kPost + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
                    Refusal{kPost + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
                    Refusal{kPost + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
                    Refusal{kPost + "Content-Length: -1\r\n\r\n", 400},
                    Refusal{"GET /" + std::string(3000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
                    Refusal{"GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(3000, 'a') + "\r\n\r\n", 431},
                    Refusal{kPost + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(9000, 'e'), 400},
                    Refusal{"GET / HTTP/2.7\r\nHost: h\r\n\r\n", 505}));

TEST(HttpServer, HandlersThatThrowOrSayNothingAreFiveHundreds) {
  auto server = start([](HttpRequest request, ResponseWriter& out) -> asio::awaitable<void> {
    if (request.path == "/throw") throw std::runtime_error("on purpose");
    if (request.path == "/odd") throw 7;
    if (request.path == "/half") {
      co_await out.start_stream(200, {});
      co_await out.write("half");
      throw std::runtime_error("on purpose");
    }
    if (request.path == "/ok") co_await out.send(200, {}, "fine");
  });
  RawClient client(server->port());
  for (const char* path : {"/throw", "/odd", "/silent"}) {
    client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 500 "));
  }
  client.send("GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(client.read_response(), EndsWith("\r\n\r\nfine"));
  client.send("GET /half HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string half = client.read_to_close();
  EXPECT_THAT(half, HasSubstr("\r\n\r\n4\r\nhalf\r\n"));
  EXPECT_THAT(half, Not(HasSubstr("0\r\n\r\n"))) << "a cut stream must not look whole";
}

TEST(HttpServer, NoHeaderValueCanBeginAField) {
  auto server = start([](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
    co_await out.send(200, Headers::of("X-A", "1\r\nX-Evil: 2", "Bad Name\r\n", "x", "Content-Length", "999"), "body");
  });
  RawClient client(server->port());
  client.send(kGet);
  const std::string response = client.read_response();
  EXPECT_THAT(response, HasSubstr("X-A: 1  X-Evil: 2\r\n"));
  EXPECT_THAT(response, Not(HasSubstr("Bad Name")));
  EXPECT_THAT(response, HasSubstr("Content-Length: 4\r\n"));
}

TEST(HttpServer, RequestIdsAreKeptWhenPlain) {
  auto server = start(echo);
  RawClient client(server->port());
  client.send("GET / HTTP/1.1\r\nHost: h\r\nx-request-ID: abc-1\r\n\r\n");
  EXPECT_THAT(client.read_response(), HasSubstr("X-Request-Id: abc-1\r\n"));
  client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: no spaces\r\n\r\n");
  EXPECT_THAT(client.read_response(), testing::ContainsRegex("X-Request-Id: [0-9a-f]{32}\r\n"));
}

TEST(HttpServer, TooManyConnectionsAreToldSo) {
  HttpServerOptions options;
  options.connections_max = 2;
  options.retry_after_s = 7;
  auto server = start(echo, options);
  RawClient first(server->port()), second(server->port());
  for (RawClient* client : {&first, &second}) {
    client->send(kGet);
    EXPECT_THAT(client->read_response(), StartsWith("HTTP/1.1 200"));
  }
  RawClient third(server->port());
  third.send(kGet);
  const std::string refusal = third.read_to_close();
  EXPECT_THAT(refusal, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(refusal, HasSubstr("Retry-After: 7\r\n"));
  first.send(kGet);
  EXPECT_THAT(first.read_response(), StartsWith("HTTP/1.1 200"));
}

TEST(HttpServer, ListensOnIpv6AndRefusesATakenPort) {
  HttpServerOptions options;
  options.address = "::";
  auto server = start(echo, options);
  RawClient v4(server->port(), "127.0.0.1");
  v4.send(kGet);
  EXPECT_THAT(v4.read_response(), StartsWith("HTTP/1.1 200"));
  options.port = server->port();
  const auto second = HttpServer::start(options, echo);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr("cannot listen on"));
  options.address = "not an address";
  EXPECT_FALSE(HttpServer::start(options, echo).ok());
}

TEST(HttpServer, ManyThreadsServeManyClients) {
  HttpServerOptions options;
  options.io_threads = 3;
  auto server = start(echo, options);
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> clients;
    for (int t = 0; t < 6; ++t) {
      clients.emplace_back([&] {
        RawClient client(server->port());
        for (int i = 0; i < 50; ++i) {
          client.send(kGet);
          good += client.read_response().ends_with("GET /a b?x=1|");
        }
      });
    }
  }
  EXPECT_EQ(good, 300);
}

}  // namespace
}  // namespace spillway::net
