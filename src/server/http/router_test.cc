// The other routes and what the router does before each: errors, keys, CORS, health, metrics, models, tokenize.
#include <gmock/gmock.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <fstream>
#include <future>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

class RouterTest : public ServerTest {};

// The threads for long texts are kept busy: their requests wait for one, and nobody else does.
TEST_F(RouterTest, LongTextsAreTokenisedAside) {
  start();
  std::promise<void> release;
  boost::asio::io_context context;
  std::function<void()> blocks = [opened = release.get_future().share()] { opened.wait(); };
  for (int thread = 0; thread < 2; ++thread) {
    boost::asio::co_spawn(context, server_->run_aside(blocks), boost::asio::detached);
  }
  context.poll();
  std::string text;
  while (text.size() < 20'000) text += "7 x ";
  const std::string message = R"({"model":"tiny-r1","messages":[{"role":"user","content":")" + text + "\"}]}";
  std::vector<std::unique_ptr<net::RawClient>> waiting;
  waiting.push_back(open("/tokenize", R"({"model":"tiny-r1","prompt":")" + text + "\"}"));
  waiting.push_back(open("/v1/messages/count_tokens", message));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(get("/health/live").status, 200);
  for (const auto& client : waiting) EXPECT_FALSE(client->has_answer());
  release.set_value();
  for (const auto& client : waiting) EXPECT_THAT(client->read_response(), HasSubstr("200 OK"));
  context.run();
}

TEST_F(RouterTest, UnknownPathsAndMethods) {
  start();
  Answer answer = get("/v1/nothing");
  EXPECT_EQ(answer.status, 404);
  EXPECT_TRUE(answer.json().at("error").at("message").is_string());
  answer = get("/v1/chat/completions");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.headers.value_or("Allow", ""), "POST, OPTIONS");
  EXPECT_TRUE(answer.json().at("error").is_object());
  answer = call("DELETE", "/anthropic/v1/messages");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.json().at("type").as_string(), "error");
}

TEST_F(RouterTest, CompressedBodiesAreUnpackedOrRefusedByName) {
  start();
  net::Headers headers;
  headers.add("Content-Encoding", "gzip");
  const Answer answer = post("/v1/chat/completions", "\x1F\x8B", headers);
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json().at("error").at("message"),
            "body in gzip: expected a whole gzip or zlib stream, found 2 bytes that end too soon");
  headers.set("Content-Encoding", "zstd");
  EXPECT_EQ(post("/v1/chat/completions", "{}", headers).json().at("error").at("message"),
            "Content-Encoding: expected gzip, deflate or identity, found zstd");
}

TEST_F(RouterTest, MalformedJsonSaysWhere) {
  start();
  const Answer answer = post("/v1/chat/completions", R"({"model": "tiny-r1", "messages": [)");
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, ::testing::ContainsRegex("(byte|column|position|offset|line) [0-9]+"));
}

TEST_F(RouterTest, UnknownModelIs404InTheDialect) {
  start();
  const std::string body = R"({"model":"gpt-9","max_tokens":5,"messages":[{"role":"user","content":"x"}]})";
  Answer answer = post("/v1/chat/completions", body);
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.json().at("error").at("code").as_string(), "model_not_found");
  answer = post("/v1/messages", body);
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.json().at("error").at("type").as_string(), "not_found_error");
}

TEST_F(RouterTest, NoModelIsNotAnUnknownOne) {
  start();
  const Answer answer = post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json().at("error").at("message").as_string(), "model: expected a name, found none");
}

TEST_F(RouterTest, KeysFromListAndFile) {
  const std::string file = ::testing::TempDir() + "/spillway_keys";
  std::ofstream(file) << "# people\n\n  key-from-file-0002  \n";
  ServerOptions options;
  options.api_keys = {"key-from-list-0001"};
  options.api_keys_file = file;
  start(std::move(options));
  EXPECT_EQ(get("/v1/models").status, 401);
  const auto models = [&](net::Headers headers) { return call("GET", "/v1/models", "", std::move(headers)).status; };
  EXPECT_EQ(models({{"Authorization", "Bearer key-from-list-0001"}}), 200);
  EXPECT_EQ(models({{"authorization", "bearer key-from-file-0002"}}), 200);
  EXPECT_EQ(models({{"x-api-key", "key-from-file-0002"}}), 200);
  EXPECT_EQ(models({{"Authorization", "Basic key-from-list-0001"}}), 401);
  EXPECT_EQ(models({{"Authorization", "Bearer key-from-list-000"}}), 401);
  const Answer answer = call("GET", "/v1/models", "", {{"Authorization", "Bearer sk-something-secret-here"}});
  EXPECT_THAT(std::string(answer.json().at("error").at("message").as_string()),
              HasSubstr("Authentication Fails, Your api key: ****here is invalid"));
  EXPECT_EQ(answer.json().at("error").at("type").as_string(), "authentication_error");
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/metrics").status, 200);
}

TEST_F(RouterTest, HealthAndMetricsCanBeClosed) {
  ServerOptions options;
  options.api_keys = {"key"};
  options.open_health = false;
  options.open_metrics = false;
  start(std::move(options));
  EXPECT_EQ(get("/health").status, 401);
  EXPECT_EQ(get("/metrics").status, 401);
  EXPECT_EQ(call("GET", "/metrics", "", {{"x-api-key", "key"}}).status, 200);
}

TEST(ApiKeysTest, AFileWithoutKeysIsRefused) {
  const std::string file = ::testing::TempDir() + "/spillway_no_keys";
  std::ofstream(file) << "# none yet\n";
  EXPECT_FALSE(ApiKeys::load({}, file).ok());
  EXPECT_FALSE(ApiKeys::load({}, file + ".absent").ok());
  EXPECT_FALSE(ApiKeys().required());
}

TEST_F(RouterTest, CorsOnlyForTheOriginsNamed) {
  ServerOptions options;
  options.cors_origins = {"https://good.example"};
  options.api_keys = {"key"};
  start(std::move(options));
  Answer answer = call("OPTIONS", "/v1/chat/completions", "",
                       {{"Origin", "https://good.example"}, {"Access-Control-Request-Headers", "authorization"}});
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.headers.value_or("Access-Control-Allow-Origin", ""), "https://good.example");
  EXPECT_EQ(answer.headers.value_or("Access-Control-Allow-Headers", ""), "authorization");
  answer = call("GET", "/health", "", {{"Origin", "https://evil.example"}});
  EXPECT_FALSE(answer.headers.contains("Access-Control-Allow-Origin"));
}

TEST_F(RouterTest, RequestIdIsKept) {
  start();
  const Answer answer = call("GET", "/health", "", {{"X-Request-Id", "abc-123"}});
  EXPECT_EQ(answer.headers.value_or("X-Request-Id", ""), "abc-123");
  EXPECT_FALSE(get("/health").headers.value_or("X-Request-Id", "").empty());
}

TEST_F(RouterTest, Models) {
  start();
  const json::value list = get("/v1/models").json();
  EXPECT_EQ(list.at("object").as_string(), "list");
  EXPECT_EQ(list.at("data").at(0).at("id").as_string(), "tiny-r1");
  EXPECT_EQ(list.at("data").at(1).at("id").as_string(), "deepseek-reasoner");
  EXPECT_EQ(get("/models").status, 200);
  EXPECT_EQ(get("/v1/models/deepseek-reasoner").json().at("id").as_string(), "deepseek-reasoner");
  EXPECT_EQ(get("/v1/models/nothing").status, 404);
}

TEST_F(RouterTest, TokenizeAndBack) {
  start();
  Answer answer = post("/tokenize", R"({"model":"tiny-r1","prompt":"What is 1?","add_special_tokens":false})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value body = answer.json();
  EXPECT_EQ(body.at("count").as_int64(), static_cast<int64_t>(model_.ids("What is 1?").size()));
  answer = post("/detokenize", R"({"model":"tiny-r1","tokens":)" + json::serialize(body.at("tokens")) + "}");
  EXPECT_EQ(answer.json().at("prompt").as_string(), "What is 1?");
  answer = post("/detokenize", R"({"tokens":[5,99999]})");
  EXPECT_EQ(answer.status, 422);
  EXPECT_THAT(answer.body, HasSubstr("expected token ids below 512, found 99999"));
  answer = post("/tokenize", kChat + "}");
  const std::vector<int32_t> rendered =
      model_.ids("<｜begin▁of▁sentence｜><｜User｜>What is 12 + 30?<｜Assistant｜><think>\n");
  EXPECT_EQ(answer.json().at("count").as_int64(), static_cast<int64_t>(rendered.size()));
}

TEST_F(RouterTest, MetricsOnBothPorts) {
  ServerOptions options;
  options.metrics_port = 0;
  start(std::move(options));
  post("/v1/chat/completions", kChat + "}");
  const std::string text = get("/metrics").body;
  EXPECT_THAT(text, HasSubstr(R"(spillway_http_requests_total{route="/v1/chat/completions",status="200"})"));
  EXPECT_THAT(text, HasSubstr("spillway_http_time_to_first_token_seconds_bucket"));
  const Answer other = call("GET", "/metrics", "", {}, server_->metrics_port());
  EXPECT_EQ(other.status, 200);
  EXPECT_THAT(other.body, HasSubstr("spillway_http_requests_total"));
  EXPECT_EQ(call("GET", "/v1/models", "", {}, server_->metrics_port()).status, 404);
}

}  // namespace
}  // namespace spillway::server
