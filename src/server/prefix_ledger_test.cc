#include "server/prefix_ledger.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace spillway::server {
namespace {

std::string blocks_of(const PrefixLedger& ledger, int64_t tokens) {
  const std::string text = ledger.json(tokens);
  return text.substr(text.find('['));
}

TEST(PrefixLedger, TellsTheMostRecentThatFitWhatIsHeld) {
  PrefixLedger ledger;
  ledger.served("100:a,b,c");
  ledger.served("100:a,d");
  EXPECT_EQ(blocks_of(ledger, 1000), R"(["a","d","b","c"]})");
  EXPECT_EQ(blocks_of(ledger, 250), R"(["a","d"]})");
  EXPECT_EQ(blocks_of(ledger, 0), "[]}");
}

TEST(PrefixLedger, IgnoresWhatIsNoListOfHashes) {
  PrefixLedger ledger;
  for (const char* text : {"", "x", "100", "100:", "0:a", "-5:a", "100:a,", "100:a;b", "100:g", "9999999999:a",
                           "100:a,b c", "100:11111111111111111"}) {
    ledger.served(text);
  }
  EXPECT_EQ(blocks_of(ledger, 1000), "[]}");
}

TEST(PrefixLedger, IsBounded) {
  PrefixLedger ledger;
  for (int i = 0; i < 6000; ++i) ledger.served("1:" + std::to_string(i));
  const std::string told = ledger.json(1 << 30);
  EXPECT_EQ(size_t(std::ranges::count(told, ',')), PrefixLedger::kBlocksToldMax - 1 + 1);
  EXPECT_NE(told.find("\"5999\""), std::string::npos);
}

TEST(PrefixLedger, AnotherProcessIsAnotherEpoch) { EXPECT_NE(PrefixLedger().json(0), PrefixLedger().json(0)); }

}  // namespace
}  // namespace spillway::server
