// The formats of /metrics, read back by small readers of their own, and the native form of histograms.
#include "metrics/exposition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "metrics/docs.h"
#include "metrics/metrics.h"
#include "metrics/proto_writer.h"

namespace spillway::metrics {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kTrace = "0af7651916cd43dd8448eb211c80319c";

Counter visits("test_exposed_visits_total", "Visits, \"quoted\".", {"page"});
Gauge heat("test_exposed_heat_celsius", "Heat.", {}, Layer::kHardware);
Histogram delays("test_exposed_delay_seconds", "Delays.", {0.1, 1, 10}, {"class"}, Layer::kBusiness);

// A message of the wire form: its fields in order, each a number or bytes.
struct Field {
  uint64_t number = 0;
  std::string bytes;
};
using Message = std::multimap<int, Field>;

uint64_t take_varint(std::string_view& in) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = uint8_t(in.at(0));
    in.remove_prefix(1);
    value |= uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

Message parse_message(std::string_view in) {
  Message message;
  while (!in.empty()) {
    const uint64_t tag = take_varint(in);
    Field field;
    if ((tag & 7) == 0) {
      field.number = take_varint(in);
    } else if ((tag & 7) == 1) {
      std::memcpy(&field.number, in.data(), 8);
      in.remove_prefix(8);
    } else {
      const uint64_t size = take_varint(in);
      field.bytes = in.substr(0, size);
      in.remove_prefix(size);
    }
    message.emplace(int(tag >> 3), std::move(field));
  }
  return message;
}

const Field& only(const Message& message, int field) {
  EXPECT_EQ(message.count(field), 1U) << field;
  return message.find(field)->second;
}
double as_double(const Field& field) { return std::bit_cast<double>(field.number); }
int64_t as_signed(uint64_t zigzag) { return int64_t(zigzag >> 1) ^ -int64_t(zigzag & 1); }

std::map<std::string, Message> families() {
  const std::string body = expose(Format::kProtobuf);
  std::map<std::string, Message> all;
  for (std::string_view in = body; !in.empty();) {
    const uint64_t size = take_varint(in);
    Message family = parse_message(in.substr(0, size));
    in.remove_prefix(size);
    all.emplace(only(family, 1).bytes, std::move(family));
  }
  return all;
}

// Native buckets by index, from spans and deltas.
std::map<int, int64_t> native_buckets(const Message& histogram) {
  std::map<int, int64_t> buckets;
  const std::string packed = histogram.count(13) ? only(histogram, 13).bytes : "";
  std::string_view deltas = packed;
  int index = 0;
  int64_t count = 0;
  for (auto [span, end] = histogram.equal_range(12); span != end; ++span) {
    const Message fields = parse_message(span->second.bytes);
    index += int(as_signed(only(fields, 1).number));
    for (uint64_t i = 0; i < only(fields, 2).number; ++i) buckets[index++] = count += as_signed(take_varint(deltas));
  }
  EXPECT_TRUE(deltas.empty());
  return buckets;
}

TEST(Negotiation, TheScrapersPreferenceIsKept) {
  EXPECT_EQ(choose_format(""), Format::kPrometheusText);
  EXPECT_EQ(choose_format("*/*"), Format::kPrometheusText);
  EXPECT_EQ(
      choose_format("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
      Format::kOpenMetrics);
  EXPECT_EQ(choose_format("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
                          "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"),
            Format::kProtobuf);
  EXPECT_EQ(choose_format("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.9"),
            Format::kPrometheusText);
  EXPECT_EQ(choose_format("application/vnd.google.protobuf;proto=other"), Format::kPrometheusText);
  EXPECT_EQ(choose_format(";;q=,,=;q=nan"), Format::kPrometheusText);
}

TEST(OpenMetrics, NamesUnitsExemplarsAndEnd) {
  visits.with({"a"}).add(3);
  delays.with({"om"}).observe(0.5, kTrace);
  delays.with({"om"}).observe(0.05, "too short to be a trace");
  const std::string text = expose(Format::kOpenMetrics);
  EXPECT_TRUE(text.ends_with("\n# EOF\n"));
  EXPECT_THAT(text,
              HasSubstr("# HELP test_exposed_visits Visits, \\\"quoted\\\".\n# TYPE test_exposed_visits counter\n"));
  EXPECT_THAT(text, HasSubstr("test_exposed_visits_total{page=\"a\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("# UNIT test_exposed_heat_celsius celsius\n"));
  EXPECT_THAT(text, HasSubstr("test_exposed_delay_seconds_bucket{class=\"om\",le=\"0.1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("test_exposed_delay_seconds_bucket{class=\"om\",le=\"1.0\"} 2 # {trace_id=\"" +
                              std::string(kTrace) + "\"} 0.5 "));
  EXPECT_THAT(expose(Format::kPrometheusText), Not(HasSubstr(kTrace)));
}

TEST(Protobuf, CountersGaugesAndLabels) {
  visits.with({"pb"}).add(2.5);
  heat->set(-3);
  const auto all = families();
  const Message& counter = all.at("test_exposed_visits_total");
  EXPECT_EQ(only(counter, 3).number, 0U);
  bool found = false;
  for (auto [one, end] = counter.equal_range(4); one != end; ++one) {
    const Message metric = parse_message(one->second.bytes);
    const Message label = parse_message(only(metric, 1).bytes);
    EXPECT_EQ(only(label, 1).bytes, "page");
    if (only(label, 2).bytes != "pb") continue;
    found = true;
    EXPECT_EQ(as_double(only(parse_message(only(metric, 3).bytes), 1)), 2.5);
  }
  EXPECT_TRUE(found);
  const Message& gauge = all.at("test_exposed_heat_celsius");
  EXPECT_EQ(only(gauge, 5).bytes, "celsius");
  EXPECT_EQ(as_double(only(parse_message(only(parse_message(only(gauge, 4).bytes), 2).bytes), 1)), -3);
}

TEST(Protobuf, HistogramsInBothForms) {
  Distribution& series = delays.with({"pb"});
  const std::vector<double> values = {0, 0.001, 0.09, 0.1, 0.5, 1, 1, 5, 1000, 1e12};
  for (double value : values) series.observe(value, kTrace);
  const auto all = families();
  for (auto [one, end] = all.at("test_exposed_delay_seconds").equal_range(4); one != end; ++one) {
    const Message metric = parse_message(one->second.bytes);
    if (only(parse_message(only(metric, 1).bytes), 2).bytes != "pb") continue;
    const Message histogram = parse_message(only(metric, 7).bytes);
    EXPECT_EQ(only(histogram, 1).number, values.size());
    std::vector<uint64_t> classic;
    for (auto [bucket, last] = histogram.equal_range(3); bucket != last; ++bucket) {
      const Message fields = parse_message(bucket->second.bytes);
      classic.push_back(only(fields, 1).number);
      const Message label = parse_message(only(parse_message(only(fields, 3).bytes), 1).bytes);
      EXPECT_EQ(only(label, 2).bytes, kTrace);
    }
    EXPECT_THAT(classic, testing::ElementsAre(4, 7, 8));
    EXPECT_EQ(as_signed(only(histogram, 5).number), kNativeSchema);
    EXPECT_EQ(only(histogram, 7).number, 1U);  // the zero
    std::map<int, int64_t> expected;
    for (double value : values) {
      if (value > 0) ++expected[std::min(native_index(value), kNativeFirstIndex + kNativeBuckets - 1)];
    }
    EXPECT_EQ(native_buckets(histogram), expected);
    return;
  }
  FAIL() << "no such series";
}

TEST(Native, EachValueLiesWithinItsBucket) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> exponents(-29.9, 33.9);
  for (int i = 0; i < 20000; ++i) {
    const double value = std::exp2(exponents(random));
    const int index = native_index(value);
    ASSERT_LE(value, native_upper_bound(index) * (1 + 1e-12)) << value;
    ASSERT_GT(value, native_upper_bound(index - 1) * (1 - 1e-12)) << value;
  }
  for (int exponent = -29; exponent < 34; ++exponent) {  // bounds are inclusive
    EXPECT_EQ(native_index(std::exp2(exponent)), exponent * kNativePerOctave);
  }
}

TEST(Native, QuantilesAreWithinABucketOfTheTrueOnes) {
  const std::vector<double> bounds = {1};
  Distribution series(bounds);
  std::mt19937_64 random(11);
  std::lognormal_distribution<double> latency(-3, 1.2);
  std::vector<double> values(20000);
  for (double& value : values) series.observe(value = latency(random));
  std::ranges::sort(values);
  const NativeReading reading = series.native();
  EXPECT_EQ(reading.count, values.size());
  for (double q : {0.01, 0.5, 0.95, 0.99, 0.999}) {
    const double truth = values[size_t(q * double(values.size() - 1))];
    EXPECT_NEAR(reading.quantile(q) / truth, 1, 0.095) << q;
  }
  EXPECT_NEAR(reading.count_up_to(values[15000]) / 15000, 1, 0.03);
  EXPECT_TRUE(std::isnan(NativeReading().quantile(0.5)));
}

TEST(Native, AWindowIsTheDifferenceOfTwoReadings) {
  const std::vector<double> bounds = {1};
  Distribution series(bounds);
  for (int i = 0; i < 100; ++i) series.observe(0.001);
  const NativeReading before = series.native();
  for (int i = 0; i < 50; ++i) series.observe(8);
  series.observe(std::nan(""));
  const NativeReading between = series.native().since(before);
  EXPECT_EQ(between.count, 50U);
  EXPECT_NEAR(between.quantile(0.5), 8, 8 * 0.09);
  EXPECT_NEAR(between.sum, 400, 1e-6);
}

TEST(Docs, EveryMetricIsInTheSectionOfItsLayer) {
  const std::string docs = print_markdown();
  const size_t hardware = docs.find("## Hardware"), business = docs.find("## Business");
  const size_t at = docs.find("| `test_exposed_heat_celsius` | gauge | celsius |  | Heat. |");
  EXPECT_GT(at, hardware);
  EXPECT_LT(at, docs.find("## Service"));
  EXPECT_GT(docs.find("| `test_exposed_delay_seconds` | histogram | seconds | `class` | Delays. |"), business);
}

}  // namespace
}  // namespace spillway::metrics
