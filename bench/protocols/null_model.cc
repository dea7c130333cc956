// What the protocols cost: small requests to a model that answers at once, over HTTP and gRPC, as requests a second and
// core: requests divided by the CPU time of the server's process. Beside each protocol its floor, a call that does
// nothing. null_model [seconds a case] [connections]
#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "inference.grpc.pb.h"
#include "server/fake_one_shot_for_test.h"
#include "server/grpc/grpc_server.h"
#include "server/model_catalogue.h"
#include "server/server.h"

namespace {

using namespace spillway;
using Clock = std::chrono::steady_clock;

struct Ports {
  uint16_t http = 0, grpc = 0;
};

template <class T>
T need(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return std::move(result).value();
}

void serve(int ready, int stop) {
  server::ServerOptions options;
  options.http.address = "127.0.0.1";
  options.http.io_threads = 1;
  auto running = need(server::Server::start(options));
  auto engine = std::make_unique<server::FakeOneShot>(server::FakeOneShot::encoder_info());
  engine->answer = [](const engine::OneShotRequest&) { return std::vector<float>(4, 0.25f); };
  server::ServedOneShotOptions model;
  model.name = "null";
  model.folder = SPILLWAY_SOURCE_DIR "/tests/golden/tokenizer_bert";
  std::vector<server::OneShotPtr> models{need(server::ServedOneShot::make(model, std::move(engine)))};
  running->serve(std::make_shared<server::FixedCatalogue>(std::vector<server::LanguagePtr>(), std::move(models)));
  server::GrpcOptions grpc;
  grpc.address = "127.0.0.1";
  grpc.port = 0;
  auto front = need(server::GrpcServer::start(grpc, *running));
  const Ports ports{running->port(), front->port()};
  if (write(ready, &ports, sizeof ports) != sizeof ports) std::exit(1);
  char byte;
  while (read(stop, &byte, 1) < 0) continue;  // until the parent closes it
}

double cpu_s(pid_t pid) {
  clockid_t clock;
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) std::exit(1);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

// Requests answered within the time by so many connections, each with one request under way.
int64_t http_load(uint16_t port, const std::string& request, int connections, double for_s) {
  std::vector<pollfd> fds;
  std::vector<std::string> received(connections);
  for (int i = 0; i < connections; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) std::exit(1);
    if (send(fd, request.data(), request.size(), 0) < 0) std::exit(1);
    fds.push_back({fd, POLLIN, 0});
  }
  int64_t answered = 0;
  const auto until = Clock::now() + std::chrono::duration<double>(for_s);
  char buffer[16384];
  while (Clock::now() < until) {
    poll(fds.data(), fds.size(), 100);
    for (int i = 0; i < connections; ++i) {
      if (!(fds[i].revents & POLLIN)) continue;
      const ssize_t size = recv(fds[i].fd, buffer, sizeof buffer, 0);
      if (size <= 0) std::exit(1);
      std::string& text = received[i];
      text.append(buffer, size_t(size));
      const size_t head = text.find("\r\n\r\n");
      if (head == std::string::npos) continue;
      const size_t length = text.find("Content-Length: ");
      if (text.compare(0, 12, "HTTP/1.1 200") != 0 || length == std::string::npos) {
        std::fprintf(stderr, "%s\n", text.c_str());
        std::exit(1);
      }
      if (text.size() < head + 4 + std::stoul(text.substr(length + 16))) continue;
      text.clear();
      ++answered;
      if (send(fds[i].fd, request.data(), request.size(), 0) < 0) std::exit(1);
    }
  }
  for (const pollfd& each : fds) close(each.fd);
  return answered;
}

std::string post(const std::string& path, const std::string& body, const std::string& header = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + header +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

inference::ModelInferRequest infer_request() {
  inference::ModelInferRequest request;
  request.set_model_name("null");
  auto* input = request.add_inputs();
  input->set_name("input_ids");
  input->set_datatype("INT64");
  input->add_shape(1);
  input->add_shape(8);
  const int64_t ids[8] = {2, 5, 6, 7, 8, 9, 10, 3};
  request.add_raw_input_contents(ids, sizeof ids);
  return request;
}

// Keeps `depth` calls under way until the time is over.
template <class Request, class Response>
int64_t unary_load(int depth, double for_s, const Request& request,
                   const std::function<void(grpc::ClientContext*, const Request*, Response*,
                                            std::function<void(grpc::Status)>)>& call) {
  std::atomic<int64_t> answered{0};
  std::atomic<int> running{depth};
  const auto until = Clock::now() + std::chrono::duration<double>(for_s);
  struct State {
    std::unique_ptr<grpc::ClientContext> context;
    Response response;
  };
  std::vector<State> states(depth);
  std::function<void(int)> next = [&](int i) {
    if (Clock::now() >= until) {
      --running;
      return;
    }
    states[i].context = std::make_unique<grpc::ClientContext>();
    states[i].response.Clear();
    call(states[i].context.get(), &request, &states[i].response, [&, i](grpc::Status status) {
      if (!status.ok()) {
        std::fprintf(stderr, "%s\n", status.error_message().c_str());
        std::exit(1);
      }
      ++answered;
      next(i);
    });
  };
  for (int i = 0; i < depth; ++i) next(i);
  while (running > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return answered;
}

int64_t stream_load(inference::GRPCInferenceService::Stub& stub, int depth, double for_s) {
  grpc::ClientContext context;
  auto stream = stub.ModelStreamInfer(&context);
  const inference::ModelInferRequest request = infer_request();
  std::atomic<int64_t> sent{0}, answered{0};
  const auto until = Clock::now() + std::chrono::duration<double>(for_s);
  std::thread reader([&] {
    inference::ModelStreamInferResponse response;
    while (stream->Read(&response)) {
      if (!response.error_message().empty()) std::exit(1);
      ++answered;
    }
  });
  while (Clock::now() < until) {
    if (sent - answered >= depth) {
      std::this_thread::yield();
      continue;
    }
    stream->Write(request);
    ++sent;
  }
  stream->WritesDone();
  reader.join();
  stream->Finish();
  return answered;
}

void measure(pid_t server, const char* name, const std::function<int64_t()>& load) {
  const double before = cpu_s(server);
  const auto begun = Clock::now();
  const int64_t requests = load();
  const double wall = std::chrono::duration<double>(Clock::now() - begun).count(), cpu = cpu_s(server) - before;
  std::printf("%-34s %9.0f requests/s and core  %6.1f us CPU each  (%.0f/s, %.2f cores)\n", name,
              double(requests) / cpu, cpu / double(requests) * 1e6, double(requests) / wall, cpu / wall);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const double for_s = argc > 1 ? std::atof(argv[1]) : 3;
  const int depth = argc > 2 ? std::atoi(argv[2]) : 32;
  int ready[2], stop[2];
  if (pipe(ready) != 0 || pipe(stop) != 0) return 1;
  const pid_t child = fork();
  if (child == 0) {
    close(stop[1]);
    serve(ready[1], stop[0]);
    _exit(0);
  }
  Ports ports;
  if (read(ready[0], &ports, sizeof ports) != sizeof ports) return 1;
  const std::string infer =
      R"({"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,8],"data":[2,5,6,7,8,9,10,3]}]})";
  const auto http = [&](const std::string& request) {
    return [&, request] { return http_load(ports.http, request, depth, for_s); };
  };
  std::printf("%d requests under way, %.0f s a case\n", depth, for_s);
  measure(child, "HTTP floor: GET /health/live", http("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"));
  measure(child, "HTTP /v1/embeddings, text",
          http(post("/v1/embeddings", R"({"model":"null","input":"hello world"})")));
  measure(child, "HTTP /v2/.../infer, JSON", http(post("/v2/models/null/infer", infer)));
  std::string binary =
      R"({"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,8],"parameters":{"binary_data_size":64}}],"parameters":{"binary_data_output":true}})";
  const std::string header = "Inference-Header-Content-Length: " + std::to_string(binary.size()) + "\r\n";
  binary += infer_request().raw_input_contents(0);
  measure(child, "HTTP /v2/.../infer, binary", http(post("/v2/models/null/infer", binary, header)));

  grpc::ChannelArguments arguments;
  auto channel = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(ports.grpc),
                                           grpc::InsecureChannelCredentials(), arguments);
  auto stub = inference::GRPCInferenceService::NewStub(channel);
  measure(child, "gRPC floor: ServerLive", [&] {
    return unary_load<inference::ServerLiveRequest, inference::ServerLiveResponse>(
        depth, for_s, {}, [&](auto* context, auto* request, auto* response, auto done) {
          stub->async()->ServerLive(context, request, response, std::move(done));
        });
  });
  measure(child, "gRPC ModelInfer", [&] {
    return unary_load<inference::ModelInferRequest, inference::ModelInferResponse>(
        depth, for_s, infer_request(), [&](auto* context, auto* request, auto* response, auto done) {
          stub->async()->ModelInfer(context, request, response, std::move(done));
        });
  });
  measure(child, "gRPC ModelStreamInfer", [&] { return stream_load(*stub, depth, for_s); });
  close(stop[1]);
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  return 0;
}
