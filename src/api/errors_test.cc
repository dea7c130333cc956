#include "api/errors.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <set>

#include "api/common.h"

namespace spillway::api {
namespace {

namespace json = boost::json;

TEST(Errors, EachKindHasItsRow) {
  std::set<std::string> labels;
  for (const ErrorRow& row : error_rows()) {
    EXPECT_EQ(&error_row(row.kind), &row);
    EXPECT_GE(row.http_status, 400);
    EXPECT_LE(row.http_status, 504);
    EXPECT_GT(row.grpc_code, 0);
    EXPECT_LE(row.grpc_code, 16);
    EXPECT_TRUE(labels.insert(row.label).second) << row.label;
  }
  EXPECT_EQ(labels.size(), size_t(ErrorKind::kDeadline) + 1);
}

TEST(Errors, StatusesOfDeepseek) {
  EXPECT_EQ(error_row(ErrorKind::kInvalidFormat).http_status, 400);
  EXPECT_EQ(error_row(ErrorKind::kAuthentication).http_status, 401);
  EXPECT_EQ(error_row(ErrorKind::kInsufficientBalance).http_status, 402);
  EXPECT_EQ(error_row(ErrorKind::kInvalidParameters).http_status, 422);
  EXPECT_EQ(error_row(ErrorKind::kRateLimit).http_status, 429);
  EXPECT_EQ(error_row(ErrorKind::kServerError).http_status, 500);
  EXPECT_EQ(error_row(ErrorKind::kOverloaded).http_status, 503);
}

TEST(Errors, Bodies) {
  const ApiError error{ErrorKind::kAuthentication, "Authentication Fails", "", ""};
  EXPECT_EQ(json::parse(openai_error_body(error)),
            json::parse(R"({"error":{"message":"Authentication Fails","type":"authentication_error","param":null,
                            "code":"invalid_request_error"}})"));
  EXPECT_EQ(
      json::parse(anthropic_error_body(error)),
      json::parse(R"({"type":"error","error":{"type":"authentication_error","message":"Authentication Fails"}})"));
  const ApiError field{ErrorKind::kInvalidParameters, "too \"hot\"", "temperature", "own_code"};
  EXPECT_EQ(
      json::parse(openai_error_body(field)),
      json::parse(
          R"({"error":{"message":"too \"hot\"","type":"invalid_request_error","param":"temperature","code":"own_code"}})"));
}

TEST(Errors, ErrorsOfTheProgramKeepTheirKind) {
  EXPECT_EQ(to_api_error(invalid("x")).http_status(), 400);
  EXPECT_EQ(to_api_error(not_found("x")).http_status(), 404);
  EXPECT_EQ(to_api_error({ErrorCode::kResourceExhausted, "x"}).http_status(), 429);
  EXPECT_EQ(to_api_error({ErrorCode::kUnavailable, "x"}).http_status(), 503);
  EXPECT_EQ(to_api_error({ErrorCode::kDeadlineExceeded, "x"}).http_status(), 504);
  EXPECT_EQ(to_api_error({ErrorCode::kInternal, "x"}).http_status(), 500);
  for (const ErrorCode code : {ErrorCode::kInvalidArgument, ErrorCode::kNotFound, ErrorCode::kUnsupported,
                               ErrorCode::kUnauthenticated, ErrorCode::kResourceExhausted, ErrorCode::kUnavailable,
                               ErrorCode::kDeadlineExceeded, ErrorCode::kCancelled, ErrorCode::kInternal}) {
    EXPECT_EQ(to_error(to_api_error({code, "why"})).code, code);
  }
  EXPECT_EQ(to_error({ErrorKind::kInvalidFormat, "expected a string", "model", ""}).message,
            "model: expected a string");
}

TEST(Common, Utf8LossyReplacesWhatIsNotACharacter) {
  EXPECT_EQ(utf8_lossy("aé中😀"), "aé中😀");
  EXPECT_EQ(utf8_lossy("a\xE4\xBD"), "a\uFFFD\uFFFD");
  EXPECT_EQ(utf8_lossy("\xFF\xC0\x80z"), "\uFFFD\uFFFD\uFFFDz");
  EXPECT_EQ(utf8_lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8_lossy(""), "");
}

}  // namespace
}  // namespace spillway::api
