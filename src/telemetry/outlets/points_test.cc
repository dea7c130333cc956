// Points in the forms of the spool, InfluxDB and Prometheus.
#include "telemetry/outlets/points.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <snappy.h>

#include <limits>

#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

metrics::Counter shown("test_points_total", "Points.", {"zone", "area"});
metrics::Histogram delay("test_points_seconds", "Delays.", {0.5, 2});

PointBatch sample() {
  return {1700000000123,
          {{"a_total", {{"path", "/v1 x,y=z"}, {"who", "back\\"}}, 3.25},
           {"b", {}, -0.0},
           {"c", {{"k", "two\nlines"}}, 1e300}}};
}

TEST(Points, ComeBackFromTheSpoolExactly) {
  const PointBatch batch = sample();
  const auto back = decode(encode(batch));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->time_ms, batch.time_ms);
  ASSERT_EQ(back->points.size(), batch.points.size());
  for (size_t i = 0; i < batch.points.size(); ++i) {
    EXPECT_EQ(back->points[i].name, batch.points[i].name);
    EXPECT_EQ(back->points[i].labels, batch.points[i].labels);
    EXPECT_EQ(std::bit_cast<uint64_t>(back->points[i].value), std::bit_cast<uint64_t>(batch.points[i].value));
  }
}

TEST(Points, BrokenBytesAreAnError) {
  const std::string good = encode(sample());
  EXPECT_FALSE(decode("").ok());
  EXPECT_FALSE(decode(good.substr(0, good.size() - 1)).ok());
  std::string plain;
  snappy::Uncompress(good.data(), good.size(), &plain);
  for (size_t size = 1; size < plain.size(); ++size) {
    std::string cut;
    snappy::Compress(plain.data(), size, &cut);
    EXPECT_FALSE(decode(cut).ok()) << size;
  }
  std::string longer;
  plain += '\0';
  snappy::Compress(plain.data(), plain.size(), &longer);
  EXPECT_FALSE(decode(longer).ok());
  std::string huge;  // says that four thousand million points follow
  const std::string claim("\x01\xff\xff\xff\xff\x0f", 6);
  snappy::Compress(claim.data(), claim.size(), &huge);
  EXPECT_FALSE(decode(huge).ok());
}

TEST(Points, AsInfluxLines) {
  PointBatch batch = sample();
  batch.points.push_back({"d", {}, std::numeric_limits<double>::infinity()});
  EXPECT_EQ(influx_lines(batch),
            "a_total,path=/v1\\ x\\,y\\=z,who=back\\ "
            " value=3.25 1700000000123\n"
            "b value=0 1700000000123\n"
            "c,k=two lines value=1e+300 1700000000123\n");
}

TEST(Points, AsARemoteWrite) {
  const PointBatch batch{1700000000123, {{"up", {{"Zone", "b"}, {"job", "x"}}, 1}}};
  const std::string bytes = remote_write({&batch, 1});
  std::string plain;
  ASSERT_TRUE(snappy::Uncompress(bytes.data(), bytes.size(), &plain));
  const std::string label =
      "\x0a\x09\x0a\x04Zone\x12\x01"
      "b";
  const std::string name = "\x0a\x0e\x0a\x08__name__\x12\x02up";
  const std::string job = "\x0a\x08\x0a\x03job\x12\x01x";
  const std::string tail =
      std::string("\x12\x10\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10", 12) + "\xfb\xd0\x95\xff\xbc\x31";
  const std::string series = label + name + job + tail;
  EXPECT_EQ(plain, "\x0a" + std::string(1, char(series.size())) + series);
}

TEST(Points, OfTheRegistry) {
  shown.with({"z", ""}).add(4);
  delay->observe(1);
  std::vector<Point> mine;
  const auto batches = read_points(5, 7);
  ASSERT_GT(batches.size(), 1U);
  for (const PointBatch& batch : batches) {
    EXPECT_EQ(batch.time_ms, 5);
    EXPECT_LE(batch.points.size(), 7U);
    for (const Point& point : batch.points) {
      if (point.name.starts_with("test_points")) mine.push_back(point);
    }
  }
  ASSERT_EQ(mine.size(), 6U);
  EXPECT_EQ(mine[0].name, "test_points_seconds_bucket");
  EXPECT_EQ(mine[0].labels[0].second, "0.5");
  EXPECT_EQ(mine[1].value, 1);
  EXPECT_EQ(mine[2].labels[0].second, "+Inf");
  EXPECT_EQ(mine[5].name, "test_points_total");
  EXPECT_EQ(mine[5].labels, (decltype(mine[5].labels){{"zone", "z"}}));
}

}  // namespace
}  // namespace spillway::telemetry
