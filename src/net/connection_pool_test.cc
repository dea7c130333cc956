#include "net/connection_pool.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

namespace spillway::net {
namespace {

class ConnectionPoolTest : public ::testing::Test {
 protected:
  std::shared_ptr<ClientConnection> connection(const std::string& origin) {
    return std::make_shared<ClientConnection>(io_.get_executor(), origin);
  }
  static constexpr auto kAny = ConnectionPool::Check::kNone;

  asio::io_context io_;
};

TEST_F(ConnectionPoolTest, GivesTheOneUsedLastOfTheOriginAsked) {
  ConnectionPool pool(10, std::chrono::seconds(60));
  const auto a1 = connection("http://a"), a2 = connection("http://a"), b = connection("http://b");
  for (const auto& one : {a1, a2, b}) pool.give_back(one);
  EXPECT_EQ(pool.size(), 3u);
  EXPECT_EQ(pool.size("http://a"), 2u);
  EXPECT_EQ(pool.take("http://a", kAny), a2);
  EXPECT_EQ(pool.take("http://a", kAny), a1);
  EXPECT_EQ(pool.take("http://a", kAny), nullptr);
  EXPECT_EQ(pool.take("http://c", kAny), nullptr);
  EXPECT_EQ(pool.size(), 1u);
}

TEST_F(ConnectionPoolTest, PastItsSizeTheOriginsOldestGoes) {
  ConnectionPool pool(2, std::chrono::seconds(60));
  const auto a1 = connection("http://a"), a2 = connection("http://a"), b = connection("http://b");
  for (const auto& one : {b, a1, a2}) pool.give_back(one);
  EXPECT_EQ(pool.size(), 2u);
  EXPECT_EQ(pool.take("http://a", kAny), a2);
  EXPECT_EQ(pool.take("http://a", kAny), nullptr);
  EXPECT_EQ(pool.take("http://b", kAny), b);
}

TEST_F(ConnectionPoolTest, WhatIsOldIsNotGivenNorKept) {
  ConnectionPool pool(10, std::chrono::nanoseconds(1));
  pool.give_back(connection("http://a"));
  pool.give_back(connection("http://b"));
  EXPECT_EQ(pool.take("http://a", kAny), nullptr);
  EXPECT_EQ(pool.size(), 0u) << "b's has gone too, though nobody asks for it";
}

TEST_F(ConnectionPoolTest, OneThatIsNotOpenIsPassedOver) {
  ConnectionPool pool(10, std::chrono::seconds(60));
  pool.give_back(connection("http://a"));  // was never connected
  EXPECT_EQ(pool.take("http://a"), nullptr);
  EXPECT_EQ(pool.size(), 0u);
}

}  // namespace
}  // namespace spillway::net
