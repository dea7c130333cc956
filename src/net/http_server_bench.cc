// Small requests and small events through the server, for a load generator of choice (wrk and the like):
//   http_server_bench [PORT [IO_THREADS]]     GET / is a small answer, GET /stream 100 events; ends at end of input
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "net/http_server.h"
#include "net/sse.h"

namespace {

namespace net = spillway::net;

net::asio::awaitable<void> answer(net::HttpRequest request, net::ResponseWriter& out) {
  if (request.path != "/stream") {
    co_await out.send(200, net::Headers::of("Content-Type", "application/json"), R"({"status":"ok"})");
    co_return;
  }
  co_await out.start_stream(200, net::Headers::of("Content-Type", net::kSseContentType));
  std::string event;
  for (int i = 0; i < 100; ++i) {
    event.clear();
    net::append_sse_event(event, R"({"choices":[{"delta":{"content":"token"}}]})");
    if (!co_await out.write(event)) co_return;
  }
  co_await out.end();
}

}  // namespace

int main(int argc, char** argv) {
  net::HttpServerOptions options;
  options.address = "127.0.0.1";
  options.port = argc > 1 ? uint16_t(std::atoi(argv[1])) : 0;
  options.io_threads = argc > 2 ? std::atoi(argv[2]) : 1;
  auto server = net::HttpServer::start(options, answer);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  std::printf("http://127.0.0.1:%u\n", (*server)->port());
  std::fflush(stdout);
  char byte;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}
