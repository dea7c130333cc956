#include "gateway/tenants/virtual_key.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <chrono>

namespace spillway::gateway {

Result<std::string> make_virtual_key() {
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::array<unsigned char, 43> bytes;
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return Error{ErrorCode::kInternal, "no randomness from the system"};
  std::string key = "sk-sw-";
  for (const unsigned char byte : bytes) key += kAlphabet[byte % 64];
  return key;
}

Result<std::string> make_key_id() {
  std::array<unsigned char, 6> bytes;
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return Error{ErrorCode::kInternal, "no randomness from the system"};
  std::string id = "key-";
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

KeyDigest key_digest(std::string_view key, std::string_view pepper) {
  KeyDigest digest;
  unsigned int size = 0;
  const unsigned char* made =
      HMAC(EVP_sha256(), pepper.data(), static_cast<int>(pepper.size()),
           reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data(), &size);
  SW_CHECK(made != nullptr && size == digest.size(), "HMAC-SHA256 failed");
  return digest;
}

bool same_digest(const KeyDigest& a, const KeyDigest& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

std::string_view period_name(BudgetPeriod period) {
  return period == BudgetPeriod::kTotal ? "total" : period == BudgetPeriod::kDay ? "day" : "month";
}

Result<BudgetPeriod> parse_period(std::string_view text) {
  if (text == "total") return BudgetPeriod::kTotal;
  if (text == "day") return BudgetPeriod::kDay;
  if (text == "month") return BudgetPeriod::kMonth;
  return invalid(fmt::format("expected total, day or month, found \"{}\"", text));
}

int64_t period_number(BudgetPeriod period, int64_t unix_s) {
  if (period == BudgetPeriod::kTotal) return 0;
  const auto day = std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(unix_s)));
  if (period == BudgetPeriod::kDay) return day.time_since_epoch().count();
  const std::chrono::year_month_day date(day);
  return int64_t{static_cast<int>(date.year())} * 12 + static_cast<unsigned>(date.month()) - 1;
}

int64_t first_day_of(BudgetPeriod period, int64_t number) {
  if (period == BudgetPeriod::kTotal) return INT64_MIN;
  if (period == BudgetPeriod::kDay) return number;
  const std::chrono::year_month_day first(std::chrono::year(static_cast<int>(number / 12)),
                                          std::chrono::month(static_cast<unsigned>(number % 12) + 1),
                                          std::chrono::day(1));
  return std::chrono::sys_days(first).time_since_epoch().count();
}

}  // namespace spillway::gateway
