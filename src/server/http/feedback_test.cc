// What came of a request, told to the server over HTTP.
#include <gmock/gmock.h>

#include <future>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

class FeedbackTest : public ServerTest {
 protected:
  // The server uses outcomes_ until it is gone.
  ~FeedbackTest() override { server_.reset(); }

  void start_with_outcomes() {
    ServerOptions options;
    options.outcomes = &outcomes_;
    options.sinks = {&outcomes_};
    start(std::move(options));
  }
  static std::string thumbs(const std::string& id) { return R"({"request_id":")" + id + R"(","thumbs":"up"})"; }

  telemetry::Outcomes outcomes_{telemetry::OutcomeOptions{}};
};

TEST_F(FeedbackTest, JoinsOnceToARequest) {
  start_with_outcomes();
  const Answer answer = post("/v1/chat/completions", kChat + "}");
  const std::string id(answer.headers.value_or("X-Request-Id", ""));
  EXPECT_EQ(post("/v1/feedback", thumbs(id)).json().at("status").as_string(), "accepted");
  EXPECT_EQ(post("/v1/feedback", thumbs(id)).json().at("status").as_string(), "duplicate");
  EXPECT_EQ(post("/v1/feedback", thumbs("00000000000000000000000000000000")).status, 404);
}

TEST_F(FeedbackTest, ThatIsFasterThanTheEndOfItsRequestWaitsForIt) {
  start_with_outcomes();
  model_.engine->hold = true;
  auto asking = std::async(std::launch::async, [this] {
    return post("/v1/chat/completions", kChat + "}", net::Headers::of("X-Request-Id", "mine-1")).status;
  });
  eventually([&] { return model_.engine->live() == 1; });
  auto telling = std::async(std::launch::async, [this] { return post("/v1/feedback", thumbs("mine-1")); });
  EXPECT_EQ(telling.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  model_.engine->release();
  EXPECT_EQ(asking.get(), 200);
  EXPECT_EQ(telling.get().json().at("status").as_string(), "accepted");
}

TEST_F(FeedbackTest, OfARequestThatGoesOnIsNotKeptForEver) {
  start_with_outcomes();
  model_.engine->hold = true;
  auto asking = std::async(std::launch::async, [this] {
    return post("/v1/chat/completions", kChat + "}", net::Headers::of("X-Request-Id", "mine-1")).status;
  });
  eventually([&] { return model_.engine->live() == 1; });
  EXPECT_EQ(post("/v1/feedback", thumbs("mine-1")).status, 404);
  model_.engine->release();
  EXPECT_EQ(asking.get(), 200);
}

}  // namespace
}  // namespace spillway::server
