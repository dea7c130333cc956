// Slow, silent, leaving and late clients, and the server's own leaving.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cstring>
#include <future>
#include <thread>

#include "metrics/process.h"
#include "net/channel.h"
#include "net/http_server.h"
#include "net/test_raw_client.h"

namespace spillway::net {
namespace {

using namespace std::chrono_literals;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

asio::awaitable<void> ok(HttpRequest request, ResponseWriter& out) { co_await out.send(200, {}, request.body); }

std::unique_ptr<HttpServer> start(Handler handler, HttpServerOptions options = {}) {
  options.address = "127.0.0.1";
  auto server = HttpServer::start(std::move(options), std::move(handler));
  EXPECT_TRUE(server.ok()) << server.error().message;
  return std::move(server).value();
}

TEST(HttpLimits, SlowHeadersAndBodiesAreCut) {
  HttpServerOptions options;
  options.header_timeout = 500ms;
  auto server = start(ok, options);
  RawClient header(server->port());
  header.send("GET / HTTP/1.1\r\nHost:");
  EXPECT_THAT(header.read_to_close(), StartsWith("HTTP/1.1 408 "));
  RawClient silent(server->port());
  EXPECT_EQ(silent.read_to_close(), "");

  HttpServerOptions slow_body;
  slow_body.body_timeout = 50ms;
  server = start(ok, slow_body);
  RawClient body(server->port());
  body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_THAT(body.read_to_close(), StartsWith("HTTP/1.1 408 "));

  HttpServerOptions idle;
  idle.idle_timeout = 50ms;
  server = start(ok, idle);
  RawClient kept(server->port());
  kept.send(kGet);
  EXPECT_THAT(kept.read_to_close(), StartsWith("HTTP/1.1 200 "));
}

TEST(HttpLimits, ABodyThatDripsIsCutByItsRate) {
  HttpServerOptions options;
  options.rate_grace = 50ms;
  options.rate_bytes_per_s_min = 1 << 20;
  auto server = start(ok, options);
  RawClient client(server->port());
  client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
  std::jthread drip([&](std::stop_token stop) {
    while (!stop.stop_requested() && client.send("x")) std::this_thread::sleep_for(5ms);
  });
  EXPECT_THAT(client.read_until("\r\n"), StartsWith("HTTP/1.1 408 "));
}

TEST(HttpLimits, BodiesTogetherAreBounded) {
  HttpServerOptions options;
  options.bodies_bytes_max = 1000;
  auto server = start(ok, options);
  RawClient client(server->port());
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ";
  client.send(post + "1000\r\n\r\n" + std::string(1000, 'x'));
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 200 "));
  client.send(post + "900\r\n\r\n" + std::string(900, 'x'));
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 200 ")) << "what was answered is no longer counted";
  client.send(post + "1001\r\n\r\n" + std::string(1001, 'x'));
  EXPECT_THAT(client.read_to_close(), StartsWith("HTTP/1.1 503 "));
}

TEST(HttpLimits, AReaderThatTakesNothingIsCut) {
  HttpServerOptions options;
  options.write_timeout = 100ms;
  std::promise<bool> last_write;
  std::atomic<uint64_t> written{0};
  auto server = start(
      [&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
        co_await out.start_stream(200, {});
        const std::string chunk(64 << 10, 'x');
        while (co_await out.write(chunk)) written += chunk.size();
        last_write.set_value(out.disconnected());
      },
      options);
  RawClient client(server->port());
  client.send(kGet);
  EXPECT_TRUE(last_write.get_future().get());
  EXPECT_LT(written, 64u << 20) << "what the reader does not take must not pile up";
}

TEST(HttpLimits, ASlowReaderGetsEverything) {
  const std::string body(8 << 20, 'y');
  auto server =
      start([&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> { co_await out.send(200, {}, body); });
  RawClient client(server->port());
  client.send(kGet);
  client.read_until("\r\n\r\n");
  EXPECT_EQ(client.read_bytes(body.size()), body);
}

TEST(HttpDisconnect, IsToldWhileTheHandlerWaitsForSomethingElse) {
  std::promise<void> told, waiting;
  auto server = start([&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
    auto gone = std::make_shared<Signal>(out.executor());
    out.on_disconnect([gone] { gone->notify(); });
    co_await out.start_stream(200, {});
    co_await out.write(": idle\n\n");
    waiting.set_value();
    if (co_await gone->wait_until(std::chrono::steady_clock::now() + 20s)) told.set_value();
  });
  {
    RawClient client(server->port());
    client.send(kGet);
    client.read_until(": idle");
    waiting.get_future().wait();
  }
  EXPECT_EQ(told.get_future().wait_for(10s), std::future_status::ready);
}

TEST(HttpDisconnect, PipelinedBytesBehindAWaitingHandlerAreKept) {
  std::shared_ptr<Signal> go;
  std::promise<void> waiting;
  auto server = start([&](HttpRequest request, ResponseWriter& out) -> asio::awaitable<void> {
    if (request.path == "/wait") {
      go = std::make_shared<Signal>(out.executor());
      waiting.set_value();
      co_await go->wait_until(TimePoint::max());
      EXPECT_FALSE(out.disconnected());
    }
    co_await out.send(200, {}, request.path + request.body);
  });
  RawClient client(server->port());
  client.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  waiting.get_future().wait();
  const std::string big(100'000, 'b');
  std::jthread sender([&] {
    client.send("POST /next HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + big);
    go->notify();
  });
  EXPECT_THAT(client.read_response(), EndsWith("/wait"));
  EXPECT_THAT(client.read_response(), EndsWith("/next" + big));
}

TEST(HttpDisconnect, AHalfClosedClientStillGetsAQuickAnswer) {
  auto server = start(ok);
  RawClient client(server->port());
  client.send(kGet);
  client.socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send);
  EXPECT_THAT(client.read_to_close(), StartsWith("HTTP/1.1 200 "));
}

TEST(HttpDrain, FinishesWhatIsUnderWayAndClosesTheRest) {
  std::shared_ptr<Signal> go;
  std::promise<void> waiting;
  auto server = start([&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
    go = std::make_shared<Signal>(out.executor());
    co_await out.start_stream(200, {});
    co_await out.write("first ");
    waiting.set_value();
    co_await go->wait_until(TimePoint::max());
    co_await out.write("last");
    co_await out.end();
  });
  RawClient idle(server->port()), busy(server->port());
  busy.send(kGet);
  waiting.get_future().wait();
  auto drained = std::async(std::launch::async, [&] { return server->drain(std::chrono::steady_clock::now() + 20s); });
  EXPECT_EQ(idle.read_to_close(), "");
  EXPECT_EQ(drained.wait_for(0s), std::future_status::timeout);
  go->notify();
  EXPECT_THAT(busy.read_to_close(), EndsWith("6\r\nfirst \r\n4\r\nlast\r\n0\r\n\r\n"));
  EXPECT_TRUE(drained.get());
  EXPECT_EQ(server->connections(), 0u);
  boost::system::error_code refused;
  asio::io_context context;
  asio::ip::tcp::socket socket(context);
  socket.connect({asio::ip::make_address("127.0.0.1"), server->port()}, refused);
  EXPECT_EQ(refused, asio::error::connection_refused);
}

TEST(HttpDrain, CutsWhatOutlastsTheDeadline) {
  std::promise<void> waiting;
  auto server = start([&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
    auto gone = std::make_shared<Signal>(out.executor());
    out.on_disconnect([gone] { gone->notify(); });
    waiting.set_value();
    co_await gone->wait_until(TimePoint::max());
  });
  RawClient busy(server->port());
  busy.send(kGet);
  waiting.get_future().wait();
  EXPECT_FALSE(server->drain(std::chrono::steady_clock::now() + 50ms));
  EXPECT_EQ(busy.read_to_close(), "");
}

TEST(HttpDrain, DestroyingAServerWithAWaitingHandlerIsSafe) {
  std::promise<void> waiting;
  std::shared_ptr<Channel<int>> channel;
  auto server = start([&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
    channel = std::make_shared<Channel<int>>(out.executor(), 4);
    auto keep = channel;
    waiting.set_value();
    co_await keep->pop();
  });
  RawClient busy(server->port());
  busy.send(kGet);
  waiting.get_future().wait();
  server.reset();
  EXPECT_TRUE(channel->push(1)) << "its producer may outlive the server";
}

// A stream costs a few KB: the figure itself is for the benchmark, the bound here is the promise of 50 KB each, both
// ends and the coroutines included.
TEST(HttpLimits, TwoThousandIdleStreams) {
  constexpr size_t kStreams = 2000;
  rlimit files{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < 2 * kStreams + 100) GTEST_SKIP() << "too few descriptors are allowed here";
  std::atomic<size_t> told{0};
  auto server = start([&](HttpRequest, ResponseWriter& out) -> asio::awaitable<void> {
    auto channel = std::make_shared<Channel<int>>(out.executor(), 16);
    out.on_disconnect([channel] { channel->close(); });
    co_await out.start_stream(200, Headers::of("Content-Type", "text/event-stream"));
    co_await channel->pop();
    ++told;
  });
  const double before = metrics::read_process()->resident_bytes;
  asio::io_context context;
  std::vector<asio::ip::tcp::socket> clients;
  for (size_t i = 0; i < kStreams; ++i) {
    clients.emplace_back(context).connect({asio::ip::make_address("127.0.0.1"), server->port()});
    asio::write(clients.back(), asio::buffer(kGet, strlen(kGet)));
  }
  char byte;
  for (auto& client : clients) asio::read(client, asio::buffer(&byte, 1));
  EXPECT_EQ(server->connections(), kStreams);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(metrics::read_process()->resident_bytes - before, kStreams * 50e3);
#endif
  RecordProperty("bytes_each", int((metrics::read_process()->resident_bytes - before) / kStreams));
  clients.clear();
  EXPECT_TRUE(server->drain(std::chrono::steady_clock::now() + 20s));
  EXPECT_EQ(told, kStreams);
}

}  // namespace
}  // namespace spillway::net
