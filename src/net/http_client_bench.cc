// Small requests through the client to the server of http_server_bench, each on a thread of its own:
//   http_client_bench [SECONDS [REQUESTS_UNDER_WAY]]
// Prints requests a second and what the client's thread spent on each, user and system.
#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>

#include "net/http_client.h"
#include "net/http_server.h"

namespace {

namespace net = spillway::net;
namespace asio = net::asio;

constexpr const char* kBody =
    R"({"model":"deepseek-chat","messages":[{"role":"user","content":"What is 17 + 25?"}],"max_tokens":32})";

asio::awaitable<void> answer(net::HttpRequest request, net::ResponseWriter& out) {
  co_await out.send(200, net::Headers::of("Content-Type", "application/json"), std::move(request.body));
}

struct Tally {
  long done = 0, failed = 0;
};

asio::awaitable<void> ask(net::HttpClient& client, net::Url url, spillway::TimePoint until, Tally& tally) {
  while (std::chrono::steady_clock::now() < until) {
    net::ClientRequest request;
    request.method = "POST";
    request.url = url;
    request.headers = net::Headers::of("Content-Type", "application/json", "Authorization", "Bearer sk-0123456789");
    request.body = kBody;
    auto response = co_await client.fetch(std::move(request));
    const bool good = response.ok() && response->status == 200;
    ++(good ? tally.done : tally.failed);
  }
}

double thread_seconds(bool system) {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  const timeval& time = system ? usage.ru_stime : usage.ru_utime;
  return double(time.tv_sec) + double(time.tv_usec) * 1e-6;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
  const int under_way = argc > 2 ? std::atoi(argv[2]) : 32;
  net::HttpServerOptions options;
  options.address = "127.0.0.1";
  auto server = net::HttpServer::start(options, answer);
  asio::io_context context(1);
  auto client = net::HttpClient::create(context.get_executor());
  if (!server.ok() || !client.ok()) return 1;
  auto url = net::parse_url("http://127.0.0.1:" + std::to_string((*server)->port()) + "/v1/chat/completions");
  if (!url.ok()) return 1;
  Tally tally;
  const auto until = std::chrono::steady_clock::now() + spillway::from_seconds(seconds);
  for (int i = 0; i < under_way; ++i) asio::co_spawn(context, ask(**client, *url, until, tally), asio::detached);
  context.run();
  const double user = thread_seconds(false), system = thread_seconds(true);
  std::printf("%.0f requests/s, %ld failed; the client's thread: %.1f us user, %.1f us system a request\n",
              double(tally.done) / seconds, tally.failed, user / double(tally.done) * 1e6,
              system / double(tally.done) * 1e6);
  return tally.failed > 0;
}
