// KServe's v2 protocol and Triton's extensions over HTTP in front of fakes.
#include <gmock/gmock.h>

#include <cstring>

#include "server/one_shot_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

class KserveTest : public OneShotTest {
 protected:
  Answer infer(const std::string& inputs, const std::string& rest = "") {
    return post("/v2/models/mini/infer", R"({"id":"7","inputs":[)" + inputs + "]" + rest + "}");
  }
  std::string error_of(const Answer& answer) { return std::string(answer.json().at("error").as_string()); }
};

TEST_F(KserveTest, InfersFromTextAndIds) {
  start_all();
  const Answer text = infer(R"({"name":"text","datatype":"BYTES","shape":[2,1],"data":["hello","a"]})");
  ASSERT_EQ(text.status, 200) << text.body;
  const json::value body = text.json();
  EXPECT_EQ(body.at("model_name").as_string(), "mini");
  EXPECT_EQ(body.at("id").as_string(), "7");
  EXPECT_EQ(body.at("outputs").at(0).at("name").as_string(), "embedding");
  EXPECT_EQ(body.at("outputs").at(0).at("shape"), json::parse("[2,4]"));
  EXPECT_EQ(body.at("outputs").at(0).at("data").as_array().size(), 8u);

  const Answer ids = infer(R"({"name":"input_ids","datatype":"INT64","shape":[2,3],"data":[[2,5,3],[2,3,0]]},
                              {"name":"attention_mask","datatype":"INT32","shape":[2,3],"data":[1,1,1,1,1,0]})");
  ASSERT_EQ(ids.status, 200) << ids.body;
  EXPECT_EQ(encoder_.engine->seen().at(0).tokens, (std::vector<int32_t>{2, 5, 3}));
  EXPECT_EQ(encoder_.engine->seen().at(1).tokens, (std::vector<int32_t>{2, 3}));  // no padding reaches the engine
}

TEST_F(KserveTest, TokenVectorsGoBackToTheirPlaces) {
  start_all();
  encoder_.engine->answer = [](const auto& r) {
    std::vector<float> out;
    for (const int32_t token : r.tokens) out.insert(out.end(), 4, float(token));
    return out;
  };
  const Answer answer = infer(R"({"name":"input_ids","datatype":"INT64","shape":[1,4],"data":[0,2,5,0]},
                                 {"name":"attention_mask","datatype":"INT64","shape":[1,4],"data":[0,1,1,0]})",
                              R"(,"outputs":[{"name":"last_hidden_state"}])");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json().at("outputs").at(0).at("shape"), json::parse("[1,4,4]"));
  EXPECT_EQ(answer.json().at("outputs").at(0).at("data"), json::parse("[0,0,0,0,2,2,2,2,5,5,5,5,0,0,0,0]"));
}

TEST_F(KserveTest, BinaryTensorsGoBothWays) {
  start_all();
  std::string body =
      R"({"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,2],"parameters":{"binary_data_size":16}}],)"
      R"("outputs":[{"name":"embedding","parameters":{"binary_data":true}}]})";
  const size_t head = body.size();
  const int64_t ids[] = {2, 3};
  body.append(reinterpret_cast<const char*>(ids), sizeof ids);
  const net::Headers headers{{"Inference-Header-Content-Length", std::to_string(head)}};
  const Answer answer = call("POST", "/v2/models/mini/infer", body, headers);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const auto split = answer.headers.find("Inference-Header-Content-Length");
  ASSERT_TRUE(split);
  const size_t at = std::stoul(std::string(*split));
  ASSERT_EQ(answer.body.size(), at + 16);
  EXPECT_EQ(
      json::parse(answer.body.substr(0, at)).at("outputs").at(0).at("parameters").at("binary_data_size").as_int64(),
      16);
  float first;
  std::memcpy(&first, answer.body.data() + at, 4);
  EXPECT_EQ(first, 2);
  // Cut, too long, and a length beyond the body.
  EXPECT_EQ(call("POST", "/v2/models/mini/infer", body.substr(0, body.size() - 1), headers).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/mini/infer", body + "x", headers).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/mini/infer", body, {{"Inference-Header-Content-Length", "9999"}}).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/mini/infer", body, {{"Inference-Header-Content-Length", "x"}}).status, 400);
}

// As zlib packs it without compressing: a header, one stored block, Adler-32.
std::string stored(const std::string& text) {
  uint32_t a = 1, b = 0;
  for (const char c : text) a = (a + uint8_t(c)) % 65521, b = (b + a) % 65521;
  const auto size = uint16_t(text.size());
  std::string out{'\x78', '\x01', '\x01'};
  for (const uint16_t word : {size, uint16_t(~size)}) out += {char(word & 255), char(word >> 8)};
  out += text;
  for (const uint32_t part : {b >> 8, b, a >> 8, a}) out += char(part & 255);
  return out;
}

TEST_F(KserveTest, TakesPackedBodies) {
  start_all();
  const std::string body = R"({"inputs":[{"name":"text","datatype":"BYTES","shape":[1,1],"data":["hello"]}]})";
  const net::Headers deflate({{"Content-Encoding", "deflate"}});
  EXPECT_EQ(post("/v2/models/mini/infer", stored(body), deflate).status, 200);
  EXPECT_EQ(post("/embed", stored(R"({"inputs":"hello"})"), deflate).status, 200);
  const Answer cut = post("/v2/models/mini/infer", stored(body).substr(0, 30), deflate);
  EXPECT_EQ(cut.status, 400);
  EXPECT_THAT(error_of(cut), HasSubstr("end too soon"));
  const net::Headers brotli({{"Content-Encoding", "br"}});
  EXPECT_THAT(error_of(post("/v2/models/mini/infer", body, brotli)), HasSubstr("expected gzip, deflate or identity"));
}

TEST_F(KserveTest, MalformedTensorsSayWhatIsWrong) {
  start_all();
  const std::pair<const char*, const char*> cases[] = {
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,3],"data":[1,2]})", "expected 3 elements"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,-2],"data":[1,2]})", "expected a shape"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[4294967296,4294967296],"data":[]})", "expected a shape"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,2],"data":[1,"x"]})", "expected INT64, found \"x\""},
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,1],"data":[1.5]})", "found 1.5"},
      {R"({"name":"input_ids","datatype":"INT8","shape":[1,1],"data":[300]})", "expected INT8, found 300"},
      {R"({"name":"input_ids","datatype":"FP32","shape":[1,1],"data":[1]})", "expected integers"},
      {R"({"name":"input_ids","datatype":"FLOAT","shape":[1,1],"data":[1]})", "such as INT64"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,1],"data":[40000]})",
       "from 0 to 30521, found 40000 at [0,0]"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,1,1],"data":[4]})", "expected shape [N,S]"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[0,3],"data":[]})", "at least one row"},
      {R"({"name":"input_ids","datatype":"INT64","shape":[1,0],"data":[]})", "1 to 32 tokens"},
      {R"({"name":"text","datatype":"BYTES","shape":[1,2],"data":["a","b"]})", "[N,1]"},
      {R"({"name":"pixels","datatype":"FP32","shape":[1],"data":[1]})", "unexpected inference input 'pixels'"},
      {R"({"name":"attention_mask","datatype":"INT64","shape":[1,1],"data":[1]})", "found neither"},
      {R"({"name":"text","datatype":"BYTES","shape":[1],"data":["a"]},{"name":"text","datatype":"BYTES","shape":[1],"data":["a"]})",
       "came twice"},
      {R"({"name":"text","datatype":"BYTES","shape":[1],"parameters":{"shared_memory_region":"r"}})", "shared memory"},
      {R"({"name":"text","datatype":"BYTES","shape":[1]})", "expected an array, found nothing"},
      {"7", "expected an object"},
      {"", "expected an array of tensors"}};
  for (const auto& [inputs, message] : cases) {
    const Answer answer = infer(inputs);
    EXPECT_EQ(answer.status, 400) << inputs;
    EXPECT_THAT(error_of(answer), HasSubstr(message)) << inputs;
  }
  EXPECT_THAT(error_of(infer(R"({"name":"text","datatype":"BYTES","shape":[1],"data":["a"]})",
                             R"(,"outputs":[{"name":"logits"}])")),
              HasSubstr("unexpected inference output 'logits'"));
}

TEST_F(KserveTest, VisionAndClassification) {
  start_all();
  vision_.engine->answer = [](const auto&) { return std::vector<float>{0.25f, 1.5f}; };
  std::string pixels = "[";
  for (int i = 0; i < 3 * 8 * 8; ++i) pixels += (i ? ",0.5" : "0.5");
  const Answer answer = post("/v2/models/eyes/versions/1/infer",
                             R"({"inputs":[{"name":"pixel_values","datatype":"FP32","shape":[1,3,8,8],"data":)" +
                                 pixels + R"(]}],"outputs":[{"name":"logits","parameters":{"classification":2}}]})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json().at("outputs").at(0).at("data"), json::parse(R"(["1.5:1:dog","0.25:0:cat"])"));
  EXPECT_THAT(error_of(post("/v2/models/eyes/infer",
                            R"({"inputs":[{"name":"pixel_values","datatype":"FP32","shape":[1,1],"data":[1]}]})")),
              HasSubstr("expected FP32 of shape [N,3,8,8], found FP32 of shape [1,1]"));
  EXPECT_THAT(error_of(post("/v2/models/eyes/infer",
                            R"({"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["GIF"]}]})")),
              HasSubstr("expected a JPEG or PNG file"));
}

TEST_F(KserveTest, TimeoutsAndPriorities) {
  start_all();
  const std::string text = R"({"name":"text","datatype":"BYTES","shape":[1],"data":["a"]})";
  ASSERT_EQ(infer(text, R"(,"parameters":{"priority":1})").status, 200);
  EXPECT_EQ(encoder_.engine->seen().at(0).priority, engine::Priority::kHigh);
  ASSERT_EQ(infer(text, R"(,"parameters":{"priority":3,"timeout":5000000})").status, 200);
  EXPECT_EQ(encoder_.engine->seen().at(0).priority, engine::Priority::kLow);
  EXPECT_LT(encoder_.engine->seen().at(0).deadline, std::chrono::steady_clock::now() + std::chrono::seconds(6));
}

TEST_F(KserveTest, TellsOfItselfAndItsModels) {
  start_all();
  EXPECT_EQ(get("/v2").json().at("name").as_string(), "spillway");
  EXPECT_EQ(get("/v2/health/live").status, 200);
  EXPECT_EQ(get("/v2/health/ready").status, 200);
  EXPECT_EQ(get("/v2/models/mini/ready").status, 200);
  EXPECT_EQ(get("/v2/models/mini/versions/2/ready").status, 503);
  EXPECT_EQ(get("/v2/models/none/ready").status, 404);
  const json::value metadata = get("/v2/models/mini").json();
  EXPECT_EQ(metadata.at("inputs").at(0).at("datatype").as_string(), "BYTES");
  EXPECT_EQ(metadata.at("outputs").at(0).at("shape"), json::parse("[-1,4]"));
  const json::value config = get("/v2/models/mini/config").json();
  EXPECT_EQ(config.at("max_batch_size").as_int64(), 64);
  EXPECT_EQ(config.at("output").at(0).at("data_type").as_string(), "TYPE_FP32");
  ASSERT_EQ(infer(R"({"name":"text","datatype":"BYTES","shape":[1],"data":["a"]})").status, 200);
  const json::value stats = get("/v2/models/mini/stats").json().at("model_stats").at(0);
  EXPECT_EQ(stats.at("inference_count").as_int64(), 1);
  EXPECT_EQ(stats.at("inference_stats").at("success").at("count").as_int64(), 1);
  EXPECT_EQ(get("/v2/models/stats").json().at("model_stats").as_array().size(), 4u);
  EXPECT_EQ(post("/v2/repository/index", "").json().as_array().size(), 4u);
  EXPECT_EQ(post("/v2/repository/index", R"({"ready":true})").json().at(0).at("state").as_string(), "READY");
  EXPECT_EQ(post("/v2/repository/models/mini/load", "{}").status, 200);
  EXPECT_EQ(post("/v2/repository/models/none/load", "{}").status, 404);
  EXPECT_EQ(post("/v2/repository/models/mini/unload", "{}").status, 400);
  const Answer configured = post("/v2/repository/models/mini/load", R"({"parameters":{"config":"{}"}})");
  EXPECT_EQ(configured.status, 400);
  EXPECT_THAT(error_of(configured), HasSubstr("parameters: expected none, found \"config\""));
  EXPECT_EQ(get("/v2/systemsharedmemory/status").body, "[]");
  EXPECT_EQ(post("/v2/cudasharedmemory/unregister", "").status, 200);
  EXPECT_EQ(post("/v2/systemsharedmemory/region/a/register", "{}").status, 404);
  EXPECT_EQ(get("/ping").status, 200);
}

}  // namespace
}  // namespace spillway::server
