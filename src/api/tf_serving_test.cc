#include "api/tf_serving.h"

#include <gtest/gtest.h>

namespace spillway::api {
namespace {

using namespace std::literals;

TfIds ids(std::string_view body, size_t at = 0) {
  auto request = parse_tf_predict_request(body);
  EXPECT_TRUE(request.ok()) << request.error().message;
  if (!request.ok() || request->inputs.size() <= at) return {};
  return std::get<TfIds>(request->inputs[at]);
}

TEST(TfServing, WhatTheMaskLeavesOutIsNoInput) {
  const TfIds row = ids(
      R"({"instances":[{"input_ids":[101,7,8,102,0,0],"attention_mask":[1,1,1,1,0,0],"token_type_ids":[0,0,1,1,0,0]}]})");
  EXPECT_EQ(row.ids, (std::vector<int32_t>{101, 7, 8, 102}));
  EXPECT_EQ(row.types, (std::vector<int32_t>{0, 0, 1, 1}));
}

TEST(TfServing, ColumnsAreRowsOfTheSameNames) {
  const auto body = R"({"inputs":{"input_ids":[[1,2,0],[3,4,5]],"attention_mask":[[1,1,0],[1,1,1]]}})"sv;
  EXPECT_EQ(ids(body).ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(ids(body, 1).ids, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_TRUE(ids(body).types.empty());
  auto texts = parse_tf_predict_request(R"({"inputs":{"text":["a","b"]},"signature_name":"serving_default"})"sv);
  ASSERT_TRUE(texts.ok());
  EXPECT_TRUE(texts->columns);
  EXPECT_EQ(std::get<std::string>(texts->inputs.at(1)), "b");
}

TEST(TfServing, NothingThatIsNamedIsPassedOver) {
  for (const auto body :
       {R"({"instances":[{"input_ids":[1,2],"attention_mask":[1]}]})"sv,
        R"({"instances":[{"input_ids":[1,2],"attention_mask":[0,0]}]})"sv,
        R"({"instances":[{"input_ids":[1,2],"position_ids":[0,1]}]})"sv, R"({"instances":[{"text":"a","other":1}]})"sv,
        R"({"inputs":{"input_ids":[[1],[2]],"attention_mask":[[1]]}})"sv,
        R"({"inputs":{"input_ids":[[1]],"attention_mask":1}})"sv, R"({"inputs":{}})"sv,
        R"({"inputs":["a"],"instances":["a"]})"sv, R"({"instances":["a"],"signature_name":"other"})"sv}) {
    EXPECT_FALSE(parse_tf_predict_request(body).ok()) << body;
  }
}

}  // namespace
}  // namespace spillway::api
