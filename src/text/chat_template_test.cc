// Renderings against those of Jinja2 as transformers sets it up (tests/golden/chat_templates/make_expected.py).
#include "text/chat_template.h"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>
#include <fstream>
#include <iterator>
#include <map>

namespace spillway::text {
namespace {

using testing::HasSubstr;

const std::string kFolder = SPILLWAY_SOURCE_DIR "/tests/golden/chat_templates/";

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

boost::json::value read_json(const std::string& name) {
  boost::json::parse_options options;
  options.max_depth = 64;
  return boost::json::parse(read_file(kFolder + name), {}, options);
}

Result<std::string> render(std::string_view source, const boost::json::object& variables) {
  SW_ASSIGN(auto parsed, ChatTemplate::parse(source));
  return parsed->render(variables);
}

std::string error_of(std::string_view source) {
  auto out = render(source, {});
  return out.ok() ? "rendered: " + out.value() : out.error().message;
}

TEST(ChatTemplate, PublishedTemplatesRenderAsTheReference) {
  const boost::json::value all = read_json("expected.json");
  std::map<std::string, std::unique_ptr<ChatTemplate>> templates;
  int rendered = 0, refused = 0;
  for (const auto& entry : all.at("cases").as_array()) {
    const boost::json::object& expected = entry.as_object();
    const std::string name(expected.at("template").as_string());
    if (!templates.contains(name)) {
      auto parsed = ChatTemplate::parse(read_file(kFolder + name));
      ASSERT_TRUE(parsed.ok()) << name << ": " << parsed.error().message;
      templates[name] = std::move(parsed).value();
    }
    boost::json::object variables = expected.at("variables").as_object();
    variables["messages"] = all.at("conversations").as_array()[size_t(variables["messages"].as_int64())];
    if (auto* tools = variables.if_contains("tools"); tools && tools->is_string()) *tools = all.at("tools");
    const auto out = templates[name]->render(variables);
    const std::string where = name + ", " + std::string(expected.at("name").as_string());
    if (expected.contains("error")) {
      EXPECT_FALSE(out.ok()) << where << ": the reference fails: " << expected.at("error").as_string();
      ++refused;
    } else {
      ASSERT_TRUE(out.ok()) << where << ": " << out.error().message;
      EXPECT_EQ(out.value(), std::string(expected.at("expected").as_string())) << where;
      ++rendered;
    }
  }
  EXPECT_GT(rendered, 700);
  EXPECT_GT(refused, 200);
}

TEST(ChatTemplate, SnippetsRenderAsTheReference) {
  const boost::json::value all = read_json("snippets.json");
  for (const auto& entry : all.at("cases").as_array()) {
    const boost::json::object& expected = entry.as_object();
    const std::string source(expected.at("source").as_string());
    const auto out = render(source, all.at("variables").as_object());
    if (expected.contains("error")) {
      EXPECT_FALSE(out.ok()) << source << "\n  the reference: " << expected.at("error").as_string()
                             << "\n  ours: " << out.value();
    } else if (!out.ok()) {
      ADD_FAILURE() << source << "\n  expected: " << expected.at("expected").as_string() << "\n  "
                    << out.error().message;
    } else {
      EXPECT_EQ(out.value(), std::string(expected.at("expected").as_string())) << source;
    }
  }
}

TEST(ChatTemplate, ErrorsSayWhereAndWhat) {
  EXPECT_THAT(error_of("a\n{% if x %}\n"), HasSubstr("expected {% endif %}, found the end of the template"));
  EXPECT_THAT(error_of("a\nbc {{ 1 + }}"), HasSubstr("line 2, column 11: expected an expression, found '}}'"));
  EXPECT_THAT(error_of("{{ raise_exception('no tools here') }}"), HasSubstr("no tools here"));
  EXPECT_THAT(error_of("\n\n  {{ nothing.at.all }}"), HasSubstr("line 3"));
  EXPECT_THAT(error_of("{{ nothing.at }}"), HasSubstr("'nothing' is undefined"));
  EXPECT_THAT(error_of("{% set a = {} %}{{ a.b.c }}"), HasSubstr("'dict object' has no attribute 'b'"));
  EXPECT_THAT(error_of("{% set a = [] %}{{ a.append(1) }}"), HasSubstr("unsafe"));
  EXPECT_THAT(error_of("{% include 'x' %}"), HasSubstr("expected a tag"));
}

TEST(ChatTemplate, UntrustedTemplatesAreBounded) {
  EXPECT_THAT(error_of(std::string(5000, '(')), HasSubstr("rendered"));  // text, no tag
  EXPECT_THAT(error_of("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"), HasSubstr("nesting"));
  EXPECT_THAT(error_of("{{ " + std::string(5000, '[') + std::string(5000, ']') + " }}"), HasSubstr("nesting"));
  EXPECT_THAT(error_of("{{ " + std::string(5000, '-') + "1 }}"), HasSubstr("nesting"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_THAT(error_of(sum + " }}"), HasSubstr("operators"));
  std::string blocks;
  for (int i = 0; i < 5000; ++i) blocks += "{% if 1 %}";
  EXPECT_THAT(error_of(blocks), HasSubstr("nesting"));
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nesting"));
  EXPECT_THAT(error_of("{{ 'x' * 1000000000000 }}"), HasSubstr("16 MiB"));
  EXPECT_THAT(error_of("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
              HasSubstr("expected a rendering"));
  EXPECT_THAT(error_of("{% set x = 'x' * 16000000 %}{% for a in range(99) %}{{ x }}{% endfor %}"), HasSubstr("output"));
  EXPECT_THAT(error_of("{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("nested"));
  EXPECT_THAT(error_of("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}"), HasSubstr("nested too deep"));
}

TEST(ChatTemplate, StrftimeNowIsTheLocalTime) {
  const auto out = render("{{ strftime_now('%Y-%m-%d') }}", {});
  ASSERT_TRUE(out.ok());
  EXPECT_THAT(out.value(), testing::MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}"));
}

}  // namespace
}  // namespace spillway::text
