#include "metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <sstream>
#include <thread>

#include "metrics/exposition.h"
#include "metrics/process.h"
#include "metrics/registry.h"
#include "metrics/text_format.h"

namespace spillway::metrics {
namespace {

Counter requests{"test_requests_total", "Requests by outcome.", {"outcome", "path"}};
Gauge depth{"test_queue_depth", "With a \\ and a\nline feed."};
Histogram waits{"test_wait_seconds", "Waits.", {0.1, 0.5, 1}, {"class"}};
Counter crowded{"test_crowded_total", "Too many series.", {"who"}};
Counter raced{"test_raced_total", "Many threads.", {"who"}};

using Labels = std::map<std::string, std::string>;

struct Parsed {
  std::map<std::string, std::string> help, type;
  std::map<std::pair<std::string, Labels>, double> samples;
  std::vector<std::string> order;  // metric names by TYPE line
};

std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
    } else {
      out += text[++i] == 'n' ? '\n' : text[i];
    }
  }
  return out;
}

void parse_sample(const std::string& line, Parsed& parsed) {
  size_t at = line.find_first_of("{ ");
  const std::string name = line.substr(0, at);
  Labels labels;
  while (line[at] == '{' || line[at] == ',') {
    const size_t equals = line.find('=', at);
    const std::string label = line.substr(at + 1, equals - at - 1);
    ASSERT_EQ(line[equals + 1], '"') << line;
    size_t end = equals + 2;
    while (line.at(end) != '"') end += line[end] == '\\' ? 2 : 1;
    labels[label] = unescape(std::string_view(line).substr(equals + 2, end - equals - 2));
    at = end + 1;
  }
  if (line[at] == '}') ++at;
  ASSERT_EQ(line[at], ' ') << line;
  size_t used = 0;
  const double value = std::stod(line.substr(at + 1), &used);
  ASSERT_EQ(at + 1 + used, line.size()) << line;
  const bool fresh = parsed.samples.emplace(std::pair(name, labels), value).second;
  ASSERT_TRUE(fresh) << "sample twice: " << line;
}

Parsed parse(const std::string& text) {
  Parsed parsed;
  EXPECT_TRUE(text.ends_with('\n'));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool help = line.starts_with("# HELP "), type = line.starts_with("# TYPE ");
    if (!help && !type) {
      parse_sample(line, parsed);
      continue;
    }
    const size_t space = line.find(' ', 7);
    const std::string name = line.substr(7, space - 7);
    (help ? parsed.help : parsed.type)[name] = unescape(line.substr(space + 1));
    if (type) parsed.order.push_back(name);
  }
  return parsed;
}

TEST(Metrics, CountersKeepAwkwardLabelValues) {
  const std::string awkward = "a\"b\\c\nd,e}f={é";
  requests.with({"ok", awkward}).add();
  requests.with({"ok", awkward}).add(2);
  requests.with({awkward, "ok"}).add(0.25);
  const Parsed parsed = parse(prometheus_text());
  EXPECT_EQ(parsed.type.at("test_requests_total"), "counter");
  EXPECT_EQ(parsed.samples.at({"test_requests_total", {{"outcome", "ok"}, {"path", awkward}}}), 3);
  EXPECT_EQ(parsed.samples.at({"test_requests_total", {{"outcome", awkward}, {"path", "ok"}}}), 0.25);
}

TEST(Metrics, GaugeIsZeroBeforeUseAndKeepsItsHelp) {
  Parsed parsed = parse(prometheus_text());
  EXPECT_EQ(parsed.samples.at({"test_queue_depth", {}}), 0);
  EXPECT_EQ(parsed.help.at("test_queue_depth"), "With a \\ and a\nline feed.");
  EXPECT_EQ(parsed.type.at("test_queue_depth"), "gauge");
  depth->set(-3.5);
  parsed = parse(prometheus_text());
  EXPECT_EQ(parsed.samples.at({"test_queue_depth", {}}), -3.5);
}

TEST(Metrics, HistogramBucketsAreCumulativeAndInclusive) {
  for (double value : {0.05, 0.1, 0.3, 1.0, 7.0}) waits.with({"chat"}).observe(value);
  const Parsed parsed = parse(prometheus_text());
  EXPECT_EQ(parsed.type.at("test_wait_seconds"), "histogram");
  const auto bucket = [&](const char* le) {
    return parsed.samples.at({"test_wait_seconds_bucket", {{"class", "chat"}, {"le", le}}});
  };
  EXPECT_EQ(bucket("0.1"), 2);
  EXPECT_EQ(bucket("0.5"), 3);
  EXPECT_EQ(bucket("1"), 4);
  EXPECT_EQ(bucket("+Inf"), 5);
  EXPECT_EQ(parsed.samples.at({"test_wait_seconds_count", {{"class", "chat"}}}), 5);
  EXPECT_DOUBLE_EQ(parsed.samples.at({"test_wait_seconds_sum", {{"class", "chat"}}}), 8.45);
}

TEST(Metrics, SeriesAreBounded) {
  for (size_t i = 0; i < kSeriesMax + 50; ++i) crowded.with({std::to_string(i)}).add();
  crowded.with({"other"}).add();
  size_t series = 0;
  double total = 0, other = 0;
  crowded.visit([&](const std::vector<std::string>& labels, const Value& value) {
    ++series;
    total += value.get();
    if (labels[0] == "other") other = value.get();
  });
  EXPECT_EQ(series, kSeriesMax + 1);
  EXPECT_EQ(total, kSeriesMax + 51);
  EXPECT_EQ(other, 51);
}

TEST(Metrics, UpdatesFromManyThreadsAreAllCountedWhileScraped) {
  constexpr int kThreads = 4, kTimes = 5000;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < kTimes; ++i) {
        raced.with({std::to_string(i % 20)}).add();
        waits.with({"raced"}).observe(0.2);
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    const Parsed parsed = parse(prometheus_text());
    const auto count = parsed.samples.find({"test_wait_seconds_count", {{"class", "raced"}}});
    if (count == parsed.samples.end()) continue;
    const Labels infinite = {{"class", "raced"}, {"le", "+Inf"}};
    EXPECT_EQ(count->second, parsed.samples.at({"test_wait_seconds_bucket", infinite}));
  }
  threads.clear();
  double total = 0;
  raced.visit([&](const auto&, const Value& value) { total += value.get(); });
  EXPECT_EQ(total, kThreads * kTimes);
}

TEST(Metrics, TextIsSortedByName) {
  const Parsed parsed = parse(prometheus_text());
  EXPECT_TRUE(std::ranges::is_sorted(parsed.order)) << testing::PrintToString(parsed.order);
}

TEST(Metrics, NumbersReadBackExactly) {
  for (double value : {0.1, 1.0 / 3, 1e-300, 1.7976931348623157e308, 123456789.0, 1e18, -0.5, 1e15}) {
    const std::string text = format_number(value);
    double back = 0;
    std::from_chars(text.data(), text.data() + text.size(), back);
    EXPECT_EQ(back, value) << text;
  }
  EXPECT_EQ(format_number(3), "3");
  EXPECT_EQ(format_number(std::numeric_limits<double>::infinity()), "+Inf");
  EXPECT_EQ(format_number(-std::numeric_limits<double>::infinity()), "-Inf");
  EXPECT_EQ(format_number(std::nan("")), "NaN");
}

TEST(Metrics, ExponentialBoundsMultiply) {
  EXPECT_THAT(exponential_bounds(0.5, 2, 4), testing::ElementsAre(0.5, 1, 2, 4));
}

TEST(MetricsDeathTest, ANameTwiceIsABug) {
  EXPECT_DEATH(Gauge("test_queue_depth", "again"), "declared twice");
  EXPECT_DEATH(Gauge("9lives", "bad name"), "metric name");
}

TEST(Metrics, ALayerAndAUnitBelongToEachMetric) {
  EXPECT_EQ(waits.description().unit, "seconds");
  EXPECT_EQ(waits.description().layer, Layer::kService);
  EXPECT_EQ(Registry::instance().find("process_open_fds")->description().layer, Layer::kHardware);
  EXPECT_EQ(Registry::instance().find("no_such_metric"), nullptr);
  EXPECT_EQ(unit_in("spillway_x_joules_total"), "joules");
  EXPECT_EQ(unit_in("spillway_depth"), "");
}

TEST(MetricsDeathTest, CountersAndNothingElseEndInTotal) {
  EXPECT_DEATH(Counter("test_things", "no total"), "ends in _total");
  EXPECT_DEATH(Gauge("test_things_total", "a gauge"), "ends in _total");
}

TEST(Process, ReadsItself) {
  const auto before = read_process();
  ASSERT_TRUE(before.ok()) << before.error().message;
  EXPECT_GT(before->resident_bytes, 1 << 20);
  EXPECT_GT(before->start_time_seconds, 1.5e9);
  EXPECT_GE(before->open_fds, 3);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(read_process()->open_fds, before->open_fds + 2);
  ::close(ends[0]);
  ::close(ends[1]);
  const Parsed parsed = parse(prometheus_text());
  EXPECT_GT(parsed.samples.at({"process_resident_memory_bytes", {}}), 1 << 20);
  EXPECT_EQ(parsed.type.at("process_cpu_seconds_total"), "counter");
}

}  // namespace
}  // namespace spillway::metrics
