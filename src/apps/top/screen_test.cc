#include "apps/top/screen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace spillway::apps {
namespace {

using testing::HasSubstr;

constexpr const char* kFrame = R"({
  "status": "ready", "uptime_s": 90, "requests": {"per_s": 12.5, "in_flight": 3, "p50_s": 0.25},
  "tokens": {"generated_per_s": 480, "cache_hits": 0.5}, "host": {"cpu_busy": 0.5, "processors": 8},
  "verdict": {"resource": "kv_pages", "severity": "bad", "efficiency": 0.5, "step_s": 0.02,
              "shares": {"queue": 0.9, "decode": 0.1, "requests": 4}},
  "upstreams": [{"name": "edge\u001b[2J-1", "health": "down", "opens_in_s": 3, "in_flight": 0, "concurrency_max": 8}],
  "models": [{"name": "r1", "running": 1, "waiting": 1, "pages_total": 100, "pages_free": 10, "pages_cached": 20,
    "engine": {"batch_tokens_max": 64, "step": {"decode_rows": 32}, "streams": [
      {"name": "req-a", "phase": "decode", "prompt": 20, "generated": 7, "max": 64, "age_s": 1},
      {"name": "req-b", "phase": "waiting", "prompt": 900, "wait_s": 2.5, "age_s": 1}]}}]})";

boost::json::object frame() { return boost::json::parse(kFrame).as_object(); }

TEST(Screen, SaysWhatIsGoingOn) {
  const std::string screen = draw_screen(frame(), "http://h:1", {120, 60}, false);
  EXPECT_THAT(screen, HasSubstr("12.5/s, 3 in flight"));
  EXPECT_THAT(screen, HasSubstr("the KV cache is full"));
  EXPECT_THAT(screen, HasSubstr("queue 90%"));
  EXPECT_THAT(screen, HasSubstr("req-b"));
  EXPECT_THAT(screen, HasSubstr("begins in 2.5 s"));
  EXPECT_THAT(screen, HasSubstr("again in 3.0 s"));
  EXPECT_THAT(screen, HasSubstr(" 70% used"));
}

TEST(Screen, FitsAndNobodysNameMovesTheCursor) {
  const std::string screen = draw_screen(frame(), "http://h:1", {40, 9}, false);
  EXPECT_LE(std::count(screen.begin(), screen.end(), '\n'), 9);
  size_t begin = 0;
  for (size_t end; (end = screen.find('\n', begin)) != std::string::npos; begin = end + 1) EXPECT_LE(end - begin, 40u);
  EXPECT_EQ(screen.find('\033'), std::string::npos);
  EXPECT_THAT(draw_screen(frame(), "u", {120, 60}, true), HasSubstr("\033[31m"));
}

TEST(Screen, TellsConversionByArm) {
  const auto reading = [](const char* bound, const char* value) {
    return std::string(R"({"name":"spillway_business_conversion_ratio","value":)") + value +
           R"(,"labels":{"arm":"edge","model":"r1","window":"1h","bound":")" + bound + R"("}})";
  };
  const std::string frame = R"({"business": [)" + reading("estimate", "0.125") + "," + reading("low", "0.1") + "," +
                            reading("high", "0.2") + R"(, 7, {"name": "other"}]})";
  const std::string screen = draw_screen(boost::json::parse(frame).as_object(), "u", {120, 60}, false);
  EXPECT_THAT(screen, HasSubstr("edge  r1"));
  EXPECT_THAT(screen, HasSubstr("12.5%  95%: 10.0% to 20.0%"));
}

TEST(Screen, AnEmptyFrameIsNoError) {
  EXPECT_THAT(draw_screen({}, "http://h:1", {80, 24}, false), HasSubstr("http://h:1"));
  EXPECT_THAT(draw_screen(boost::json::parse(R"({"models": [3], "upstreams": 7, "requests": []})").as_object(), "u",
                          {80, 24}, false),
              HasSubstr("requests"));
}

}  // namespace
}  // namespace spillway::apps
