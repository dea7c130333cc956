// The console's routes against the scripted engine: who may look, what is told of a request, and that an open event
// stream does not hold a shutdown up.
#include <gmock/gmock.h>

#include "server/console/assets.h"
#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

using testing::HasSubstr;
using testing::Not;

class ConsoleTest : public ServerTest {
 protected:
  Answer get_with(const std::string& path, const std::string& key) {
    return call("GET", path, "", net::Headers::of("Authorization", "Bearer " + key));
  }
};

TEST_F(ConsoleTest, TheRootLeadsToThePage) {
  start();
  const Answer root = get("/");
  EXPECT_EQ(root.status, 307);
  EXPECT_EQ(root.headers.value_or("Location", ""), "/console");
  EXPECT_EQ(get("/console/").body, get("/console").body);
  EXPECT_EQ(get("/console/api/requests/").status, 404);
  EXPECT_EQ(get("/nowhere").status, 404);
}

TEST_F(ConsoleTest, AnAdminKeyIsAskedForWhereThereIsOne) {
  ServerOptions options;
  options.api_keys = {"client"};
  options.admin_keys = {"admin"};
  start(std::move(options));
  EXPECT_EQ(get("/console").status, 200);
  EXPECT_EQ(get("/console/app.js").status, 200);
  EXPECT_EQ(get("/console/api/state").status, 401);
  EXPECT_EQ(get_with("/console/api/state", "client").status, 401);
  EXPECT_EQ(get_with("/console/api/state", "admin").status, 200);
  EXPECT_EQ(get_with("/v1/models", "admin").status, 401) << "an admin key is no client's key";
}

TEST_F(ConsoleTest, WithoutAdminKeysClientsKeysOpenIt) {
  ServerOptions options;
  options.api_keys = {"client"};
  start(std::move(options));
  EXPECT_EQ(get("/console/api/state").status, 401);
  EXPECT_EQ(get_with("/console/api/state", "client").status, 200);
}

TEST_F(ConsoleTest, FilesHaveTheirTypesAndAPolicy) {
  start();
  for (const Asset& asset : console_assets()) {
    const Answer answer = get("/console/" + std::string(asset.name));
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, asset.bytes);
    EXPECT_EQ(answer.headers.value_or("Content-Type", ""), asset.content_type);
    EXPECT_THAT(std::string(answer.headers.value_or("Content-Security-Policy", "")), HasSubstr("default-src 'none'"));
  }
  EXPECT_EQ(get("/console/secrets.txt").status, 404);
}

TEST_F(ConsoleTest, TheTimelineOfARequestByEitherOfItsNames) {
  start();
  const Answer answer = post("/v1/chat/completions", kChat + "}", net::Headers::of("X-Request-Id", "mine-1"));
  ASSERT_EQ(answer.status, 200);
  const auto told = get("/console/api/requests/mine-1").json();
  EXPECT_EQ(told.at("route").as_string(), "/v1/chat/completions");
  EXPECT_EQ(told.at("status").as_int64(), 200);
  EXPECT_EQ(told.at("moments").as_array().front().at("kind"), "received");
  EXPECT_EQ(told.at("moments").as_array().back().at("kind"), "answered");
  const std::string id(answer.json().at("id").as_string());
  EXPECT_EQ(get("/console/api/requests/" + id).json().at("id").as_string(), "mine-1");
  EXPECT_EQ(get("/console/api/requests/other").status, 404);
  EXPECT_THAT(get("/console/api/requests/mine-1").body, Not(HasSubstr("12 + 30"))) << "no text of prompts";
}

TEST_F(ConsoleTest, RefusedRequestsSayWhy) {
  engine::Refusal refusal;
  refusal.reason = engine::Refusal::Reason::kQueueRequests;
  refusal.message = "full";
  model_.engine->refusal = refusal;
  start();
  post("/v1/chat/completions", kChat + "}", net::Headers::of("X-Request-Id", "r"));
  EXPECT_THAT(get("/console/api/requests/r").body, HasSubstr(R"("kind":"refused","note":"queue_requests")"));
}

TEST_F(ConsoleTest, AnOpenEventStreamDoesNotHoldADrainUp) {
  start();
  net::RawClient client(server_->port());
  client.send("GET /console/api/events HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.read_until("data:"), HasSubstr("200 OK"));
  const TimePoint begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(server_->drain(begin + std::chrono::seconds(20)));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
}

TEST_F(ConsoleTest, TracesAreBounded) {
  start();
  EXPECT_EQ(post("/console/api/trace?seconds=0", "").status, 400);
  EXPECT_EQ(post("/console/api/trace?seconds=61", "").status, 400);
  EXPECT_EQ(post("/console/api/trace?seconds=nan", "").status, 400);
  EXPECT_EQ(post("/console/api/trace?seconds=1x", "").status, 400);
  const Answer answer = post("/console/api/trace?seconds=0.05", "");
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.json().at("traceEvents").is_array());
}

}  // namespace
}  // namespace spillway::server
