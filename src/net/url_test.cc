#include "net/url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/http_message.h"

namespace spillway::net {
namespace {

TEST(Url, Parts) {
  const auto url = parse_url("HTTPS://api.example.com:8443/v1/chat?x=1#part");
  ASSERT_TRUE(url.ok()) << url.error().message;
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->host, "api.example.com");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->target, "/v1/chat?x=1");
  EXPECT_EQ(url->origin(), "https://api.example.com:8443");
}

TEST(Url, DefaultsAndIpv6) {
  EXPECT_EQ(parse_url("http://h")->target, "/");
  EXPECT_EQ(parse_url("http://h?q")->target, "/?q");
  EXPECT_EQ(parse_url("http://h:80")->authority(), "h");
  EXPECT_EQ(parse_url("https://h")->port, 443);
  const auto v6 = parse_url("http://[::1]:8000/x");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->authority(), "[::1]:8000");
}

TEST(Url, Refused) {
  for (const char* bad :
       {"", "h/path", "ftp://h", "http://", "http://:80", "http://h:0", "http://h:65536", "http://h:x", "http://u:p@h/",
        "http://h/a b", "http://h/\r\nX: 1", "http://[::1", "http://[x]/", "http://a b/", "http://[::1]x/"}) {
    const auto url = parse_url(bad);
    ASSERT_FALSE(url.ok()) << bad;
    EXPECT_THAT(url.error().message, testing::HasSubstr("expected")) << bad;
  }
}

TEST(Url, JoinsPaths) {
  EXPECT_EQ(join_path(*parse_url("http://h/v1"), "/chat").target, "/v1/chat");
  EXPECT_EQ(join_path(*parse_url("http://h/v1/?q"), "chat").target, "/v1/chat");
  EXPECT_EQ(join_path(*parse_url("http://h"), "/chat").target, "/chat");
}

TEST(Headers, CompareWithoutCase) {
  Headers headers{{"Content-Type", "a"}, {"connection", "keep-alive, Close"}, {"content-type", "b"}};
  EXPECT_EQ(headers.find("CONTENT-TYPE"), "a");
  EXPECT_TRUE(headers.has_token("Connection", "close"));
  EXPECT_FALSE(headers.has_token("Connection", "clos"));
  headers.set("content-TYPE", "c");
  EXPECT_EQ(headers.size(), 2u);
  EXPECT_EQ(headers.value_or("Content-Type", ""), "c");
  EXPECT_EQ(headers.value_or("None", "x"), "x");
}

TEST(HttpRequest, QueryParameters) {
  HttpRequest request;
  request.query = "a=1&b=%41+b&c&a=2&bad=%4";
  EXPECT_EQ(request.query_parameter("a"), "1");
  EXPECT_EQ(request.query_parameter("b"), "A b");
  EXPECT_EQ(request.query_parameter("c"), "");
  EXPECT_EQ(request.query_parameter("d"), std::nullopt);
  EXPECT_EQ(request.query_parameter("bad"), std::nullopt);
}

}  // namespace
}  // namespace spillway::net
