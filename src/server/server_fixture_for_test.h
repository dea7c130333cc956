// A server on a free port with tiny-r1's tokenizer and template in front of a FakeEngine, and blocking ways to call it.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "net/http_client.h"
#include "net/sse.h"
#include "net/test_raw_client.h"
#include "server/fake_engine_for_test.h"
#include "server/server.h"

namespace spillway::server {

inline CheckpointText tiny_text() {
  auto text = CheckpointText::read(SPILLWAY_SOURCE_DIR "/models/tiny-r1");
  SW_CHECK(text.ok(), text.error().message);
  return std::move(text).value();
}

struct TestModel {
  std::shared_ptr<ServedModel> served;
  FakeEngine* engine = nullptr;

  std::vector<int32_t> ids(std::string_view text) const {
    return served->tokenizer().encode(text, {.add_special_tokens = false}).ids;
  }
};

// A model whose engine says the text, and then the end token.
inline TestModel make_model(std::string says = "thinking</think>\nThe answer is 42.",
                            const CheckpointText& text = tiny_text(), std::string name = "tiny-r1") {
  auto engine = std::make_unique<FakeEngine>();
  TestModel model;
  model.engine = engine.get();
  ServedModelOptions options{std::move(name), {"deepseek-reasoner"}, 2048, 512, "fp_test", 0};
  auto served = ServedModel::make(std::move(options), text, std::move(engine));
  SW_CHECK(served.ok(), served.error().message);
  model.served = std::move(served).value();
  const std::vector<int32_t> script = model.ids(says);
  model.engine->script = [script](const engine::Request&) { return script; };
  return model;
}

struct Answer {
  int status = 0;
  net::Headers headers;
  std::string body;
  boost::json::value json() const { return boost::json::parse(body); }
};

class ServerTest : public ::testing::Test {
 protected:
  void start(ServerOptions options = {}, bool serve = true) {
    options.http.address = "127.0.0.1";
    auto started = Server::start(std::move(options));
    ASSERT_TRUE(started.ok()) << started.error().message;
    server_ = std::move(started).value();
    if (serve) server_->serve(std::make_shared<FixedCatalogue>(std::vector<LanguagePtr>{model_.served}));
  }

  Answer call(std::string method, std::string path, std::string body = "", net::Headers headers = {},
              uint16_t port = 0) {
    net::ClientRequest request;
    request.method = std::move(method);
    auto url = net::parse_url("http://127.0.0.1:" + std::to_string(port ? port : server_->port()) + path);
    SW_CHECK(url.ok(), "a URL");
    request.url = std::move(url).value();
    request.headers = std::move(headers);
    request.body = std::move(body);
    auto response = net::fetch_blocking(std::move(request));
    SW_CHECK(response.ok(), response.error().message);
    return {response->status, response->headers, response->body};
  }

  Answer get(std::string path) { return call("GET", std::move(path)); }
  Answer post(std::string path, std::string body, net::Headers headers = {}) {
    return call("POST", std::move(path), std::move(body), std::move(headers));
  }

  // Events of a streamed answer, comments included.
  static std::vector<net::SseEvent> events(const std::string& body) {
    std::vector<net::SseEvent> out;
    net::SseParser parser;
    const Status status = parser.feed(body, [&](const net::SseEvent& event) { out.push_back(event); });
    EXPECT_TRUE(status.ok());
    return out;
  }

  // A request on a socket of its own, whose answer the test reads as it comes.
  std::unique_ptr<net::RawClient> open(const std::string& path, const std::string& body) {
    auto client = std::make_unique<net::RawClient>(server_->port());
    client->send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
                 std::to_string(body.size()) + "\r\n\r\n" + body);
    return client;
  }

  // Waits for what another thread does; fails the test when it never happens.
  static void eventually(const std::function<bool()>& happened) {
    for (int i = 0; i < 4000 && !happened(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(happened());
  }

  TestModel model_ = make_model();
  std::unique_ptr<Server> server_;
};

inline const std::string kChat = R"({"model":"tiny-r1","messages":[{"role":"user","content":"What is 12 + 30?"}])";

}  // namespace spillway::server
