#include "server/tool_prompt.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>
#include <fstream>
#include <iterator>

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

struct Template {
  std::unique_ptr<text::ChatTemplate> chat;
  text::ToolStyle style = text::ToolStyle::kNone;
  ToolSupport support;
  json::object tokens{{"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}};

  explicit Template(const std::string& name) {
    std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/chat_templates/" + name + ".jinja");
    const std::string source(std::istreambuf_iterator<char>(file), {});
    auto parsed = text::ChatTemplate::parse(source);
    SW_CHECK(parsed.ok(), parsed.error().message);
    chat = std::move(parsed).value();
    style = text::detect_tool_style(source);
    support = probe_tools(*chat, style, tokens);
  }

  std::string render(const std::string& messages, const std::string& tools) const {
    json::array list = json::parse(messages).as_array();
    const json::value given = json::parse(tools);
    supply_tools(support, style, given, list);
    json::object variables = tokens;
    variables["messages"] = list;
    variables["add_generation_prompt"] = true;
    if (!given.is_null()) variables["tools"] = given;
    auto rendered = chat->render(variables);
    EXPECT_TRUE(rendered.ok()) << rendered.error().message;
    return rendered.ok() ? *rendered : "";
  }
};

const std::string kTools = R"([{"type":"function","function":{"name":"now","parameters":{"type":"object"}}}])";
const std::string kTurns = R"([{"role":"user","content":"Time?"},
  {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"now","arguments":"{\"zone\": 1}"}}]},
  {"role":"tool","tool_call_id":"c","content":"noon"},{"role":"tool","tool_call_id":"d","content":"later"}])";

TEST(ToolPrompt, TemplatesThatKnowToolsAreLeftAlone) {
  for (const char* name : {"qwen2_5", "llama_3"}) {
    const Template t(name);
    EXPECT_TRUE(t.support.tools && t.support.calls && t.support.results && t.support.null_content && t.support.system)
        << name;
    json::array messages = json::parse(kTurns).as_array();
    supply_tools(t.support, t.style, json::parse(kTools), messages);
    EXPECT_EQ(messages, json::parse(kTurns).as_array()) << name;
  }
}

// It looks for </think> in the content, which is null beside calls.
TEST(ToolPrompt, Qwen3StumblesOverNoContent) {
  const Template t("qwen3");
  EXPECT_TRUE(t.support.tools && t.support.calls && t.support.results && t.support.system);
  EXPECT_FALSE(t.support.null_content);
  EXPECT_THAT(t.render(kTurns, kTools), HasSubstr("<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": 1}}"));
}

// None shows the tools; the older ones do not close a single call either, and drop calls that stand beside content.
TEST(ToolPrompt, DeepseeksAreToldTheToolsAndCallsAreClosed) {
  for (const auto& [name, closes] : {std::pair("deepseek_r1", true),
                                     {"deepseek_v3_0324", true},
                                     {"deepseek_r1_distill", false},
                                     {"deepseek_r1_original", false},
                                     {"deepseek_v3", false}}) {
    const Template t(name);
    EXPECT_FALSE(t.support.tools) << name;
    EXPECT_EQ(t.support.calls, closes) << name;
    EXPECT_TRUE(t.support.results) << name;
    const std::string prompt = t.render(kTurns, kTools);
    EXPECT_THAT(prompt, HasSubstr("{\"name\":\"now\",\"parameters\":")) << name;
    EXPECT_THAT(prompt, HasSubstr("<｜User｜>Time?<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"
                                  "<｜tool▁sep｜>now\n```json\n{\"zone\": 1}\n```<｜tool▁call▁end｜>"
                                  "<｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜>"))
        << name;
    EXPECT_THAT(t.render(kTurns, "null"), Not(HasSubstr("# Tools"))) << name;
    std::string beside = kTurns;
    beside.replace(beside.find("null"), 4, "\"Let me see.\"");
    EXPECT_THAT(t.render(beside, "null"), HasSubstr("<｜Assistant｜>Let me see.")) << name;
    EXPECT_THAT(t.render(beside, "null"), HasSubstr("<｜tool▁sep｜>now\n")) << name;
  }
}

TEST(ToolPrompt, PlainTemplatesSayItInMessages) {
  const Template t("tiny_r1");
  EXPECT_FALSE(t.support.tools || t.support.calls || t.support.results || t.support.null_content);
  EXPECT_TRUE(t.support.system);
  EXPECT_THAT(t.render(kTurns, "null"),
              HasSubstr("<｜User｜>Time?<｜Assistant｜><tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": 1}}\n"
                        "</tool_call><｜end▁of▁sentence｜><｜User｜><tool_response>\nnoon\n</tool_response>\n"
                        "<tool_response>\nlater\n</tool_response><｜Assistant｜>"));
  const std::string prompt =
      t.render(R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Time?"}])", kTools);
  EXPECT_THAT(prompt, HasSubstr("Be brief.\n\n# Tools"));
  EXPECT_THAT(prompt, HasSubstr("{\"name\":\"now\",\"parameters\":"));
}

TEST(ToolPrompt, WithoutASystemRoleTheUsersFirstMessageTellsTheTools) {
  json::array messages = json::parse(R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])").as_array();
  supply_tools({false, true, true, true, false}, text::ToolStyle::kNone, json::parse(kTools), messages);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_THAT(std::string(messages[0].at("content").as_string()), HasSubstr("</tool_call>\n\na"));
  EXPECT_EQ(messages[1].at("content"), "b");
}

}  // namespace
}  // namespace spillway::server
