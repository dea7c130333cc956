// Outcomes: figures against NumPy's, feedback's shapes, joining, windows.
#include "telemetry/outcomes/outcomes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "metrics/exposition.h"

namespace spillway::telemetry {
namespace {

using testing::HasSubstr;
namespace json = boost::json;

std::vector<double> numbers(const json::value& list) {
  std::vector<double> all;
  for (const json::value& number : list.as_array()) all.push_back(number.to_number<double>());
  return all;
}

void expect_as(const Estimate& found, const json::value& expected) {
  constexpr double kTolerance = 1e-9;
  EXPECT_NEAR(found.value, expected.at("value").to_number<double>(), kTolerance);
  EXPECT_NEAR(found.low, expected.at("low").to_number<double>(), kTolerance);
  EXPECT_NEAR(found.high, expected.at("high").to_number<double>(), kTolerance);
}

class ReferenceTest : public testing::Test {
 protected:
  ReferenceTest() {
    std::ifstream in(SPILLWAY_SOURCE_DIR "/tests/golden/feedback/reference.json");
    std::stringstream text;
    text << in.rdbuf();
    cases_ = json::parse(text.str());
  }
  const json::array& cases(const char* name) { return cases_.at(name).as_array(); }
  json::value cases_;
};

TEST_F(ReferenceTest, RankingsAreAsNumPySays) {
  ASSERT_GE(cases("rankings").size(), 9U);
  for (const json::value& one : cases("rankings")) {
    const auto grades = numbers(one.at("grades"));
    EXPECT_NEAR(ndcg(grades), one.at("ndcg").to_number<double>(), 1e-12);
    EXPECT_NEAR(reciprocal_rank(grades), one.at("rr").to_number<double>(), 1e-12);
  }
}

TEST_F(ReferenceTest, IntervalsAreAsNumPySays) {
  ASSERT_GE(cases("proportions").size(), 6U);
  for (const json::value& one : cases("proportions")) {
    expect_as(proportion(one.at("k").to_number<double>(), one.at("n").to_number<double>()), one);
  }
  for (const json::value& one : cases("means")) {
    double sum = 0, squares = 0;
    const auto x = numbers(one.at("x"));
    for (double value : x) sum += value, squares += value * value;
    expect_as(mean(double(x.size()), sum, squares), one);
  }
  for (const json::value& one : cases("ratios")) {
    PairSums sums;
    const auto x = numbers(one.at("x")), y = numbers(one.at("y"));
    for (size_t i = 0; i < x.size(); ++i) sums.add(x[i], y[i]);
    expect_as(ratio(sums), one);
  }
}

TEST(Statistics, TooLittleGivesNoInterval) {
  EXPECT_TRUE(std::isnan(proportion(0, 0).value));
  EXPECT_TRUE(std::isnan(mean(1, 5, 25).low));
  EXPECT_EQ(mean(1, 5, 25).value, 5);
  EXPECT_TRUE(std::isnan(ratio({3, 1, 0, 1, 0, 0}).value));
}

TEST(Feedback, ReadsEachField) {
  const auto read = parse_feedback(R"({"request_id":"r","conversion":true,"value":2.5,"relevance":[3,0,1],
                                       "label":"a","predicted":"b","thumbs":"down"})");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->request_id, "r");
  EXPECT_EQ(read->converted, true);
  EXPECT_EQ(read->value, 2.5);
  EXPECT_THAT(read->grades, testing::ElementsAre(3, 0, 1));
  EXPECT_EQ(read->label, "a");
  EXPECT_EQ(read->thumbs_up, false);
  EXPECT_EQ(parse_feedback(R"({"request_id":"r","value":1})")->converted, true);
}

TEST(Feedback, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected JSON"},
      {"[]", "expected an object"},
      {R"({"thumbs":"up"})", "request_id: expected the X-Request-Id"},
      {R"({"request_id":"r"})", "expected conversion"},
      {R"({"request_id":7,"thumbs":"up"})", "request_id: expected a string of 1 to 128 bytes, found 7"},
      {R"({"request_id":"r","thumbs":"sideways"})", "thumbs: expected \"up\" or \"down\", found \"sideways\""},
      {R"({"request_id":"r","thumbs":1})", "thumbs: expected \"up\" or \"down\", found 1"},
      {R"({"request_id":"r","relevance":[]})", "relevance: expected 1 to 1000 grades, found 0"},
      {R"({"request_id":"r","relevance":[1,-1]})", "relevance[1]: expected a number from 0 to 100, found -1"},
      {R"({"request_id":"r","value":1e400})", "value"},
      {R"({"request_id":"r","conversion":false,"value":3})", "value: expected none without a conversion"},
      {R"({"request_id":"r","predicted":"x","thumbs":"up"})", "predicted: expected a label"},
      {R"({"request_id":"r","correct":true,"label":"x"})", "found both"},
      {R"({"request_id":"r","stars":5})", "stars: expected request_id"},
  };
  for (const auto& [body, message] : cases) {
    const auto read = parse_feedback(body);
    ASSERT_FALSE(read.ok()) << body;
    EXPECT_THAT(read.error().message, HasSubstr(message)) << body;
  }
  const auto huge = parse_feedback(std::string(kFeedbackBytesMax + 1, ' '));
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.error().code, ErrorCode::kResourceExhausted);
}

int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

RequestRecord answered(const std::string& id, const std::string& arm = "edge", double cost = 0.01) {
  RequestRecord request;
  request.id = id;
  request.route = "/v1/chat/completions";
  request.operation = "chat";
  request.model = "r1";
  request.arm = arm;
  request.status = 200;
  request.cost = cost;
  return request;
}

Feedback about(const std::string& id) {
  Feedback feedback;
  feedback.request_id = id;
  return feedback;
}

OutcomeSums of(const Outcomes& outcomes, const std::string& arm, int64_t now, Window window = Window::kHour) {
  for (const auto& [group, sums] : outcomes.sums(window, now)) {
    if (group.arm == arm) return sums;
  }
  return {};
}

TEST(Outcomes, JoinToTheRequestAndItsArm) {
  Outcomes outcomes({});
  const int64_t now = now_s();
  for (int i = 0; i < 20; ++i) outcomes.record(answered("e" + std::to_string(i), "edge"));
  for (int i = 0; i < 20; ++i) outcomes.record(answered("c" + std::to_string(i), "centre", 0.04));
  for (int i = 0; i < 20; ++i) {
    Feedback edge = about("e" + std::to_string(i)), centre = about("c" + std::to_string(i));
    edge.converted = i < 5;
    edge.value = i < 5 ? 2 : 0;
    centre.converted = i < 10;
    EXPECT_EQ(outcomes.apply(edge, 0, now), Verdict::kAccepted);
    EXPECT_EQ(outcomes.apply(centre, 0, now), Verdict::kAccepted);
  }
  const OutcomeSums edge = of(outcomes, "edge", now), centre = of(outcomes, "centre", now);
  EXPECT_EQ(edge.cost_conversion.n, 20);
  EXPECT_EQ(edge.cost_conversion.y, 5);
  EXPECT_EQ(edge.value, 10);
  EXPECT_NEAR(ratio(edge.cost_conversion).value, 0.04, 1e-8);    // 0.20 for 5
  EXPECT_NEAR(ratio(centre.cost_conversion).value, 0.08, 1e-8);  // 0.80 for 10
  outcomes.publish(now);
  const std::string text = metrics::prometheus_text();
  EXPECT_THAT(text, HasSubstr("spillway_business_conversion_ratio{model=\"r1\",version=\"\",route=\"/v1/chat/"
                              "completions\",tenant=\"\",arm=\"edge\",window=\"1h\",bound=\"estimate\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("arm=\"centre\",outcome=\"conversion\"} 10\n"));
}

TEST(Outcomes, TheJournalKeepsRequestsOverARestart) {
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("spillway_journal_" + std::to_string(::getpid()))).string();
  std::filesystem::remove_all(folder);
  const auto begin = [&] {
    OutcomeOptions options;
    auto journal = Journal::open(folder, 1 << 20);
    EXPECT_TRUE(journal.ok());
    options.journal = std::move(journal).value();
    return std::make_unique<Outcomes>(std::move(options));
  };
  Feedback up = about("old"), down = about("older");
  up.thumbs_up = down.thumbs_up = true;
  auto outcomes = begin();
  outcomes->record(answered("older", "centre"));
  outcomes->record(answered("old", "edge"));
  EXPECT_EQ(outcomes->apply(down, 0, now_s()), Verdict::kAccepted);
  outcomes = nullptr;
  outcomes = begin();
  EXPECT_EQ(outcomes->apply(up, 0, now_s()), Verdict::kAccepted);
  EXPECT_EQ(of(*outcomes, "edge", now_s()).thumbs, 1);
  EXPECT_EQ(outcomes->apply(down, 0, now_s()), Verdict::kDuplicate);  // what was said is kept, too
  outcomes = nullptr;
  std::filesystem::remove_all(folder);
}

TEST(Journal, BrokenPagesAreAnError) {
  JournalPage page{{{"m", "v", "r", "t", "a"}}, {Remembered(), Remembered()}};
  page.requests[1].caller = 1ULL << 40;
  const std::string good = encode_page(page);
  const auto back = decode_page(good);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->groups, page.groups);
  EXPECT_EQ(back->requests[1].caller, 1ULL << 40);
  for (size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(decode_page(good.substr(0, size)).ok()) << size;
  EXPECT_FALSE(decode_page(good + "x").ok());
  page.requests[0].group = 1;
  EXPECT_FALSE(decode_page(encode_page(page)).ok());
}

TEST(Outcomes, DuplicateConflictUnknownLateForbiddenUnjudged) {
  OutcomeOptions options;
  options.late_after_s = 100;
  Outcomes outcomes(std::move(options));
  const int64_t now = now_s();
  outcomes.record(answered("ours"));
  RequestRecord chosen = answered("chosen");
  chosen.id_is_ours = false;
  chosen.caller = 77;
  outcomes.record(chosen);

  Feedback up = about("ours");
  up.thumbs_up = true;
  EXPECT_EQ(outcomes.apply(up, 1, now), Verdict::kAccepted);
  EXPECT_EQ(outcomes.apply(up, 1, now), Verdict::kDuplicate);
  up.thumbs_up = false;
  EXPECT_EQ(outcomes.apply(up, 1, now), Verdict::kConflict);
  up.thumbs_up = true;
  up.correct = true;  // a further kind counts, the one said before does not count twice
  EXPECT_EQ(outcomes.apply(up, 1, now), Verdict::kAccepted);
  EXPECT_EQ(of(outcomes, "edge", now).thumbs, 1);
  EXPECT_EQ(of(outcomes, "edge", now).judged, 1);

  Feedback forged = about("forged");
  forged.thumbs_up = true;
  EXPECT_EQ(outcomes.apply(forged, 1, now), Verdict::kUnknown);
  Feedback others = about("chosen");
  others.thumbs_up = true;
  EXPECT_EQ(outcomes.apply(others, 78, now), Verdict::kForbidden);
  EXPECT_EQ(outcomes.apply(others, 77, now + 101), Verdict::kLate);
  EXPECT_EQ(outcomes.apply(others, 77, now + 99), Verdict::kAccepted);
  Feedback label = about("chosen");
  label.label = "spam";
  EXPECT_EQ(outcomes.apply(label, 77, now), Verdict::kUnjudged);
  label.predicted = "ham";
  EXPECT_EQ(outcomes.apply(label, 77, now), Verdict::kAccepted);
  EXPECT_EQ(of(outcomes, "edge", now).correct, 1);
  EXPECT_EQ(of(outcomes, "edge", now).judged, 2);
}

TEST(Outcomes, WhatWasPredictedIsRemembered) {
  Outcomes outcomes({});
  RequestRecord request = answered("p");
  request.predicted = "spam";
  outcomes.record(request);
  Feedback label = about("p");
  label.label = "spam";
  EXPECT_EQ(outcomes.apply(label, 0, now_s()), Verdict::kAccepted);
  EXPECT_EQ(of(outcomes, "edge", now_s()).correct, 1);
}

TEST(Outcomes, WindowsForget) {
  Outcomes outcomes({});
  const int64_t now = now_s();
  outcomes.record(answered("w"));
  Feedback up = about("w");
  up.thumbs_up = true;
  ASSERT_EQ(outcomes.apply(up, 0, now), Verdict::kAccepted);
  EXPECT_EQ(of(outcomes, "edge", now + 3000).thumbs, 1);
  EXPECT_EQ(of(outcomes, "edge", now + 3700).thumbs, 0);
  EXPECT_EQ(of(outcomes, "edge", now + 3700, Window::kDay).thumbs, 1);
  EXPECT_EQ(of(outcomes, "edge", now + 25 * 3600, Window::kDay).thumbs, 0);
}

TEST(Outcomes, FailedAnswersAndOtherRoutesAreNotRemembered) {
  Outcomes outcomes({});
  RequestRecord failed = answered("f");
  failed.status = 503;
  outcomes.record(failed);
  RequestRecord health = answered("h");
  health.operation = "";
  outcomes.record(health);
  for (const char* id : {"f", "h"}) {
    Feedback up = about(id);
    up.thumbs_up = true;
    EXPECT_EQ(outcomes.apply(up, 0, now_s()), Verdict::kUnknown);
  }
}

TEST(Outcomes, TheOldestRequestIsForgottenFirst) {
  RequestStore store(3);
  Remembered request;
  for (const char* id : {"a", "b", "c", "d", "d"}) {
    request.key = request_key(id);
    store.add(request);
  }
  EXPECT_EQ(store.size(), 3U);
  const auto known = [&](const char* id) { return store.visit(request_key(id), [](Remembered&) {}); };
  EXPECT_FALSE(known("a"));
  EXPECT_TRUE(known("b") && known("c") && known("d"));
}

}  // namespace
}  // namespace spillway::telemetry
