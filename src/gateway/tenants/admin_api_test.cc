#include "gateway/tenants/admin_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include "gateway/tenants/key_json.h"
#include "gateway/tenants/tenants_fixture_for_test.h"

namespace spillway::gateway {
namespace {

using testing::HasSubstr;
namespace json = boost::json;

struct Administration : LedgerFixture {
  AdminApi api{*ledger, "admin-secret"};

  AdminResponse call(const std::string& method, const std::string& path, const std::string& body = "",
                     std::map<std::string, std::string> query = {}) {
    return api.handle({method, "/admin/v1/" + path, std::move(query), "Bearer admin-secret", body, "10.0.0.1:5"});
  }
  json::object object(const AdminResponse& response) { return json::parse(response.body).as_object(); }
};

TEST(AdminApi, OnlyTheAdminKeyOpens) {
  Administration admin;
  for (const char* key : {"", "Bearer ", "Bearer admin-secre", "Bearer admin-secret2", "Basic admin-secret"}) {
    EXPECT_EQ(admin.api.handle({"GET", "/admin/v1/keys", {}, key, "", ""}).status, 401) << key;
  }
  AdminApi closed(*admin.ledger, "");
  EXPECT_EQ(closed.handle({"GET", "/admin/v1/keys", {}, "Bearer ", "", ""}).status, 401);
  EXPECT_EQ(admin.call("GET", "keys").status, 200);
}

TEST(AdminApi, AKeyFromCreationToRevocation) {
  Administration admin;
  const auto created = admin.call("POST", "keys", R"({"name":"web","tenant":"acme","models":["deepseek-*"],
      "requests_per_minute":60,"tokens_per_minute":1000,"budget_usd":12.5,"budget_period":"month","priority":3})");
  ASSERT_EQ(created.status, 201) << created.body;
  const json::object object = admin.object(created);
  const std::string key(object.at("key").as_string()), id(object.at("id").as_string());
  EXPECT_TRUE(admin.ledger->authenticate(key).ok());
  const auto listed = admin.call("GET", "keys");
  EXPECT_THAT(listed.body, HasSubstr(id));
  EXPECT_THAT(listed.body, testing::Not(HasSubstr(key.substr(6))));
  EXPECT_THAT(listed.body, testing::Not(HasSubstr("digest")));
  const auto changed = admin.call("PATCH", "keys/" + id, R"({"tokens_per_minute":5000})");
  EXPECT_EQ(admin.object(changed).at("tokens_per_minute").as_int64(), 5000);
  EXPECT_EQ(admin.object(changed).at("name").as_string(), "web");
  EXPECT_EQ(admin.object(admin.call("GET", "keys/" + id)).at("priority").as_int64(), 3);
  EXPECT_EQ(admin.call("DELETE", "keys/" + id).status, 200);
  EXPECT_FALSE(admin.ledger->authenticate(key).ok());
  const auto audit = admin.object(admin.call("GET", "audit")).at("data").as_array();
  ASSERT_EQ(audit.size(), 3u);
  EXPECT_EQ(audit[0].as_object().at("action").as_string(), "key.revoke");
  EXPECT_EQ(audit[2].as_object().at("action").as_string(), "key.create");
  const json::object& change = audit[1].as_object().at("detail").as_object();  // what it was and what it is
  EXPECT_EQ(change, (json::object{{"tokens_per_minute", json::array{1000, 5000}}}));
  EXPECT_EQ(audit[0].as_object().at("detail").at("revoked"), (json::array{false, true}));
  EXPECT_EQ(audit[2].as_object().at("detail").at("tenant").at(1), object.at("tenant"));
  EXPECT_EQ(audit[2].as_object().at("actor").as_string(), "10.0.0.1:5");
}

TEST(AdminApi, UsageAndBudgets) {
  Administration admin;
  const json::object object = admin.object(admin.call("POST", "keys", R"({"budget_usd":1})"));
  const auto caller = admin.ledger->authenticate(object.at("key").as_string()).value();
  const Price price{100, 200, 10};
  reserve(*admin.ledger, caller, 1000, 1000, price, "r1").reservation->settle({1000, 400, 500}, price);
  const auto usage = admin.object(admin.call("GET", "usage", "", {{"key", caller.key_id}})).at("data").as_array();
  ASSERT_EQ(usage.size(), 1u);
  const json::object& row = usage[0].as_object();
  EXPECT_EQ(row.at("date").as_string(), "2025-11-24");
  EXPECT_EQ(row.at("model").as_string(), "r1");
  EXPECT_EQ(row.at("cached_tokens").as_int64(), 400);
  EXPECT_DOUBLE_EQ(row.at("cost_usd").as_double(), 0.06 + 0.004 + 0.1);
  EXPECT_THAT(admin.call("GET", "usage", "", {{"from", "2025-11-25"}}).body, HasSubstr("\"data\":[]"));
  const auto budgets = admin.object(admin.call("GET", "budgets")).at("data").as_array();
  ASSERT_EQ(budgets.size(), 1u);
  EXPECT_NEAR(budgets[0].as_object().at("left_usd").as_double(), 1 - 0.164, 1e-9);
}

TEST(AdminApi, SaysWhatIsWrong) {
  Administration admin;
  const auto expect = [&](const AdminResponse& response, int status, const char* text) {
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_THAT(response.body, HasSubstr(text));
  };
  expect(admin.call("POST", "keys", "nonsense"), 400, "expected a JSON object");
  expect(admin.call("POST", "keys", R"({"colour":"red"})"), 400, "colour: no such field");
  expect(admin.call("POST", "keys", R"({"tokens_per_minute":-1})"), 400, "expected an integer from 0");
  expect(admin.call("POST", "keys", R"({"models":"all"})"), 400, "models: expected a list");
  expect(admin.call("POST", "keys", R"({"name":"a\u0000b"})"), 400, "control characters");
  expect(admin.call("POST", "keys", R"({"budget_usd":"ten"})"), 400, "budget_usd: expected a number");
  expect(admin.call("POST", "keys", R"({"budget_period":"week"})"), 400, "total, day or month");
  expect(admin.call("PATCH", "keys/key-none", "{}"), 404, "no key key-none");
  expect(admin.call("DELETE", "keys/key-none"), 404, "no key");
  expect(admin.call("GET", "keys/key-none"), 404, "no such key");
  expect(admin.call("PUT", "keys"), 405, "PUT is not allowed");
  expect(admin.call("POST", "usage"), 405, "not allowed");
  expect(admin.call("GET", "nothing"), 404, "no such path");
  expect(admin.call("GET", "usage", "", {{"from", "yesterday!"}}), 400, "expected YYYY-MM-DD");
  expect(admin.call("GET", "usage", "", {{"from", "2025-13-01"}}), 400, "expected YYYY-MM-DD");
  expect(admin.call("GET", "audit", "", {{"limit", "0"}}), 400, "from 1 to 10000");
}

TEST(KeyJson, StoredKeysComeBack) {
  KeyRecord key;
  key.id = "key-1";
  key.digest.fill(0xa5);
  key.name = "n";
  key.tenant = "t";
  key.models = {"a", "b*"};
  key.budget_nanodollars = 123'456'789;
  key.budget_period = BudgetPeriod::kMonth;
  key.priority = -2;
  key.created_unix_s = 5;
  key.revoked = true;
  const auto back = parse_stored_key(stored_key(key));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(stored_key(*back), stored_key(key));
  EXPECT_EQ(back->digest, key.digest);
  EXPECT_FALSE(parse_stored_key("{}").ok());
  EXPECT_FALSE(parse_stored_key("[").ok());
  const std::string budget = R"("budget_nanodollars":123456789)";
  std::string negative = stored_key(key);
  ASSERT_NE(negative.find(budget), std::string::npos) << negative;
  negative.replace(negative.find(budget), budget.size(), R"("budget_nanodollars":-5)");
  EXPECT_THAT(parse_stored_key(negative).error().message, ::testing::HasSubstr("found -5"));
}

}  // namespace
}  // namespace spillway::gateway
