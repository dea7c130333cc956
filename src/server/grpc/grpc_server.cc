#include "server/grpc/grpc_server.h"

#include <fmt/format.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <fstream>
#include <iterator>
#include <mutex>

#include "server/grpc/chat_service.h"
#include "server/grpc/inference_service.h"

namespace spillway::server {
namespace {

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path + ": expected a readable file");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

Result<std::shared_ptr<grpc::ServerCredentials>> credentials(const GrpcOptions& options) {
  if (options.tls_certificate_file.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  SW_ASSIGN(pair.cert_chain, read_file(options.tls_certificate_file));
  SW_ASSIGN(pair.private_key, read_file(options.tls_key_file));
  grpc::SslServerCredentialsOptions tls;
  tls.pem_key_cert_pairs.push_back(std::move(pair));
  return grpc::SslServerCredentials(tls);
}

class RunningServer final : public GrpcServer {
 public:
  RunningServer(GrpcOptions options, Server& server)
      : options_(std::move(options)),
        workers_(static_cast<size_t>(std::max(options_.threads, 1))),
        aside_(static_cast<size_t>(std::max(options_.threads, 1))),
        shared_{server, workers_, aside_, apart_},
        inference_(shared_),
        chat_(shared_) {}

  ~RunningServer() override {
    if (grpc_) grpc_->Shutdown(std::chrono::system_clock::now());  // cancels the calls and waits for them
    grpc_.reset();
    apart_.join();
    aside_.join();
    workers_.join();
  }

  Status listen() {
    static std::once_flag prepared;
    std::call_once(prepared, [] {
      grpc::reflection::InitProtoReflectionServerBuilderPlugin();
      google::protobuf::SetLogHandler(nullptr);  // it would write a line for every malformed message of a stranger
    });
    // It asks for no key, so it is only there where health may be asked without one.
    grpc::EnableDefaultHealthCheckService(shared_.server.options().open_health);
    SW_ASSIGN(auto secured, credentials(options_));
    const bool bare_ipv6 = options_.address.find(':') != std::string::npos && options_.address.front() != '[';
    const std::string address =
        fmt::format("{}:{}", bare_ipv6 ? "[" + options_.address + "]" : options_.address, options_.port);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(address, secured, &port);
    builder.RegisterService(&inference_);
    builder.RegisterService(&chat_);
    builder.SetMaxReceiveMessageSize(static_cast<int>(std::min<uint64_t>(options_.message_bytes_max, INT32_MAX)));
    builder.SetMaxSendMessageSize(-1);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a second server on the port is a mistake to tell
    // Clients that ping an idle connection are kept, not punished.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options_.calls_max);
    builder.SetResourceQuota(grpc::ResourceQuota("spillway").Resize(options_.buffers_bytes_max));
    grpc_ = builder.BuildAndStart();
    if (!grpc_ || port == 0) return Error{ErrorCode::kUnavailable, "cannot listen on " + address + " for gRPC"};
    port_ = static_cast<uint16_t>(port);
    return {};
  }

  uint16_t port() const override { return port_; }

  bool drain(TimePoint deadline) override {
    if (grpc::HealthCheckServiceInterface* health = grpc_->GetHealthCheckService()) health->SetServingStatus(false);
    const auto left = std::max(deadline - std::chrono::steady_clock::now(), Duration::zero());
    const auto wall =
        std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::system_clock::duration>(left);
    grpc_->Shutdown(wall);
    return std::chrono::steady_clock::now() < deadline;
  }

 private:
  const GrpcOptions options_;
  boost::asio::thread_pool workers_, aside_, apart_{1};
  RpcShared shared_;
  InferenceService inference_;
  ChatService chat_;
  std::unique_ptr<grpc::Server> grpc_;
  uint16_t port_ = 0;
};

}  // namespace

Result<std::unique_ptr<GrpcServer>> GrpcServer::start(GrpcOptions options, Server& server) {
  auto running = std::make_unique<RunningServer>(std::move(options), server);
  SW_TRY(running->listen());
  return std::unique_ptr<GrpcServer>(std::move(running));
}

}  // namespace spillway::server
