#include "gateway/tenants/response_cache.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "gateway/tenants/coalescer.h"

namespace spillway::gateway {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
constexpr TimePoint kNow = TimePoint(std::chrono::hours(1));

TEST(ResponseCache, OffByDefault) { EXPECT_FALSE(ResponseCache({}).key_of("t", kChat, R"({"temperature":0})")); }

TEST(ResponseCache, OnlyDeterminedRequests) {
  const ResponseCache cache({.bytes_max = 1 << 20});
  EXPECT_TRUE(cache.key_of("t", kChat, R"({"temperature":0})"));
  EXPECT_TRUE(cache.key_of("t", kChat, R"({"temperature":0.0,"n":1})"));
  EXPECT_FALSE(cache.key_of("t", kChat, R"({"temperature":0.7})"));
  EXPECT_FALSE(cache.key_of("t", kChat, R"({})"));
  EXPECT_FALSE(cache.key_of("t", kChat, R"({"temperature":0,"n":2})"));
  EXPECT_FALSE(cache.key_of("t", kChat, R"({"temperature":0,"stream":true})"));
  EXPECT_FALSE(cache.key_of("t", kChat, "[]"));
  EXPECT_FALSE(cache.key_of("t", kChat, std::string(1000, '[')));
  EXPECT_FALSE(cache.key_of("t", kChat, R"({"temperature":0,"logit_bias":{"1":1e310}})"));    // as 1e311 is
  EXPECT_FALSE(cache.key_of("t", kChat, R"({"temperature":0,"logit_bias":{"1":4.5e300}})"));  // read as a neighbour
  for (int i = 0; i < 2000; ++i) {  // numbers that people send are read as themselves
    const std::string body = fmt::format(R"({{"temperature":0,"top_p":{}.{:03},"x":{}e-9}})", i / 1000, i % 1000, i);
    EXPECT_TRUE(cache.key_of("t", kChat, body)) << body;
  }
  EXPECT_TRUE(cache.key_of("t", "/v1/embeddings", R"({"input":"x"})"));
  EXPECT_TRUE(ResponseCache({.bytes_max = 1, .any_temperature = true}).key_of("t", kChat, "{}"));
}

TEST(ResponseCache, TheSameRequestHasTheSameNameHoweverWritten) {
  const ResponseCache cache({.bytes_max = 1 << 20});
  const auto name = [&](const char* scope, const char* path, const char* body) {
    return cache.key_of(scope, path, body).value();
  };
  const auto base = name("t", kChat, R"({"model":"m","temperature":0,"messages":[{"role":"user","content":"a"}]})");
  EXPECT_EQ(base, name("t", kChat,
                       R"({ "messages":[{"content":"a","role":"user"}],"temperature":0,"model":"m","user":"u"})"));
  EXPECT_NE(base, name("u", kChat, R"({"model":"m","temperature":0,"messages":[{"role":"user","content":"a"}]})"));
  EXPECT_NE(base,
            name("t", "/v1/messages", R"({"model":"m","temperature":0,"messages":[{"role":"user","content":"a"}]})"));
  EXPECT_NE(base, name("t", kChat, R"({"model":"m","temperature":0,"messages":[{"role":"user","content":"b"}]})"));
  EXPECT_NE(name("t", kChat, R"({"temperature":0,"x":[{},[]]})"), name("t", kChat, R"({"temperature":0,"x":[[],{}]})"));
}

TEST(ResponseCache, BoundedAndExpiring) {
  ResponseCache cache({.bytes_max = 10'000, .ttl = std::chrono::seconds(10)});
  for (int i = 0; i < 100; ++i) cache.put("key" + std::to_string(i), {"text/plain", std::string(1000, 'x'), {}}, kNow);
  EXPECT_LE(cache.bytes(), 10'000u);
  EXPECT_GE(cache.entries(), 7u);
  EXPECT_EQ(cache.find("key0", kNow), nullptr);
  ASSERT_NE(cache.find("key99", kNow), nullptr);
  cache.put("huge", {"", std::string(5000, 'x'), {}}, kNow);
  EXPECT_EQ(cache.find("huge", kNow), nullptr);
  EXPECT_EQ(cache.find("key99", kNow + std::chrono::seconds(10)), nullptr);
  cache.put("key98", {"", "new", {}}, kNow);
  EXPECT_EQ(cache.find("key98", kNow)->body, "new");
}

TEST(ResponseCache, ManyThreads) {
  ResponseCache cache({.bytes_max = 20'000});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const std::string key = std::to_string(i % 37);
        if (const auto found = cache.find(key, kNow)) {
          EXPECT_EQ(found->body, "body of " + key);
        } else {
          cache.put(key, {"", "body of " + key, {}}, kNow);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(cache.bytes(), 20'000u);
}

using TextCoalescer = Coalescer<std::string>;

TEST(Coalescer, TheLeadersAnswerGoesToAll) {
  TextCoalescer coalescer;
  std::vector<std::string> told;
  const auto tell = [&](std::shared_ptr<const std::string> answer) { told.push_back(answer ? *answer : "lead"); };
  EXPECT_TRUE(coalescer.join("k", tell).leads);
  EXPECT_FALSE(coalescer.join("k", tell).leads);
  const auto left = coalescer.join("k", tell);
  EXPECT_TRUE(coalescer.join("other", tell).leads);
  coalescer.leave("k", left.id);
  coalescer.complete("k", std::make_shared<const std::string>("answer"));
  EXPECT_EQ(told, std::vector<std::string>{"answer"});
  EXPECT_TRUE(coalescer.join("k", tell).leads);  // a new one
  coalescer.abandon("k");
  coalescer.abandon("other");
  EXPECT_EQ(coalescer.groups(), 0u);
}

TEST(Coalescer, ALeaderThatGivesUpIsFollowed) {
  TextCoalescer coalescer;
  std::vector<std::string> told;
  const auto as = [&](const char* name) {
    return [&told, name](std::shared_ptr<const std::string> answer) {
      told.push_back(name + (answer ? ":" + *answer : ":lead"));
    };
  };
  coalescer.join("k", as("a"));
  coalescer.join("k", as("b"));
  coalescer.join("k", as("c"));
  coalescer.abandon("k");
  EXPECT_EQ(told, std::vector<std::string>{"b:lead"});
  coalescer.complete("k", std::make_shared<const std::string>("x"));
  EXPECT_EQ(told, (std::vector<std::string>{"b:lead", "c:x"}));
}

TEST(Coalescer, EveryoneIsToldExactlyOnce) {
  TextCoalescer coalescer;
  std::atomic<int> asked{0}, answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const std::string key = std::to_string(i % 3);
        const auto done = [&, key](std::shared_ptr<const std::string> answer) {
          ++answered;
          if (!answer) coalescer.complete(key, std::make_shared<const std::string>("late"));
        };
        ++asked;
        if (!coalescer.join(key, done).leads) continue;
        ++answered;
        if ((i + t) % 4 == 0)
          coalescer.abandon(key);
        else
          coalescer.complete(key, std::make_shared<const std::string>("now"));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(asked, answered);
  EXPECT_EQ(coalescer.groups(), 0u);
}

}  // namespace
}  // namespace spillway::gateway
