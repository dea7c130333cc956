// Tool calls over HTTP with a scripted engine: how many of them a client gets.
#include <gmock/gmock.h>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;

constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object"}}}])";

class ToolsTest : public ServerTest {
 protected:
  ToolsTest() {
    model_ = make_model(
        "Hm.</think>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n"
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>");
  }
};

TEST_F(ToolsTest, AllCallsAreTold) {
  start();
  const json::value choice = post("/v1/chat/completions", kChat + "," + kTools + "}").json().at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason").as_string(), "tool_calls");
  ASSERT_EQ(choice.at("message").at("tool_calls").as_array().size(), 2u);
}

TEST_F(ToolsTest, OneCallAtATimeWhereTheClientSaysSo) {
  start();
  const std::string one = kChat + "," + kTools + R"(,"parallel_tool_calls":false)";
  const json::value choice = post("/v1/chat/completions", one + "}").json().at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason").as_string(), "tool_calls");
  const json::array& calls = choice.at("message").at("tool_calls").as_array();
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(json::parse(calls[0].at("function").at("arguments").as_string()).at("a"), 1);

  const Answer streamed = post("/v1/chat/completions", one + R"(,"stream":true})");
  EXPECT_THAT(streamed.body, testing::Not(testing::HasSubstr("\"index\":1")));
  EXPECT_THAT(streamed.body, testing::HasSubstr("\"finish_reason\":\"tool_calls\""));
  EXPECT_THAT(streamed.body, testing::HasSubstr("[DONE]"));
}

}  // namespace
}  // namespace spillway::server
