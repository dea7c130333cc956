// The models of this process as an upstream beside others: a whole gateway between two servers, without a model.
#include <gmock/gmock.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "gateway/gateway.h"
#include "net/http_client.h"
#include "net/http_server.h"

namespace spillway::gateway {
namespace {

std::string answer_of(std::string_view who) {
  return R"({"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":")" +
         std::string(who) + R"("},"finish_reason":"stop"}]})";
}

net::Handler saying(std::string who) {
  return [who](net::HttpRequest, net::ResponseWriter& writer) -> asio::awaitable<void> {
    net::Headers headers = net::Headers::of("Content-Type", "application/json");
    std::string body = answer_of(who);
    co_await writer.send(200, std::move(headers), std::move(body));
  };
}

std::unique_ptr<net::HttpServer> serve(net::Handler handler) {
  net::HttpServerOptions options;
  options.address = "127.0.0.1";
  auto server = net::HttpServer::start(std::move(options), std::move(handler));
  EXPECT_TRUE(server.ok());
  return std::move(server).value();
}

class LocalUpstream : public testing::Test {
 protected:
  void start(bool with_other) {
    GatewayOptions options;
    options.upstreams.resize(with_other ? 2 : 1);
    options.upstreams[0].info.name = "here";
    options.upstreams[0].info.tier = Tier::kEdge;
    options.upstreams[0].kind = UpstreamKind::kLocal;
    if (with_other) {
      options.upstreams[1].info.name = "there";
      options.upstreams[1].base = *net::parse_url("http://127.0.0.1:" + std::to_string(other_->port()) + "/v1");
    }
    options.policies = {"edge_first"};
    auto around = std::make_shared<Surroundings>();
    around->local = saying("here");
    around->local_well = [this] { return well_.load(); };
    auto gateway = Gateway::create(std::move(options), around);
    ASSERT_TRUE(gateway.ok()) << gateway.error().message;
    gateway_ = std::move(gateway).value();
    front_ = serve([this](net::HttpRequest request, net::ResponseWriter& writer) -> asio::awaitable<void> {
      co_await gateway_->answer(std::move(request), Endpoint::kChat, writer);
    });
  }

  std::string who() {
    net::ClientRequest request;
    request.method = "POST";
    request.url = *net::parse_url("http://127.0.0.1:" + std::to_string(front_->port()) + "/v1/chat/completions");
    request.body = R"({"model":"m","messages":[{"role":"user","content":"hi"}]})";
    const auto response = net::fetch_blocking(std::move(request));
    if (!response.ok()) return response.error().message;
    return std::string(response->headers.value_or("X-Spillway-Upstream", response->body));
  }

  bool becomes(const std::string& name) {
    for (int i = 0; i < 500; ++i) {
      if (who() == name) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  std::atomic<bool> well_{true};
  std::unique_ptr<net::HttpServer> other_ = serve(saying("there"));
  std::shared_ptr<Gateway> gateway_;
  std::unique_ptr<net::HttpServer> front_;
};

TEST_F(LocalUpstream, IsSparedWhileItsDeviceIsLost) {
  start(true);
  EXPECT_EQ(who(), "here");
  well_ = false;
  EXPECT_TRUE(becomes("there"));
  EXPECT_EQ(who(), "there");
  well_ = true;
  EXPECT_TRUE(becomes("here"));
}

TEST_F(LocalUpstream, AnswersWhileItCanWhereNobodyElseHasTheModel) {
  well_ = false;
  start(false);
  EXPECT_EQ(who(), "here");  // at once, not at the end of the request's time
}

}  // namespace
}  // namespace spillway::gateway
