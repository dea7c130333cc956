// Embeddings, reranking, scores, classes and TEI's API over HTTP in front of fakes.
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "api/encode.h"
#include "server/one_shot_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

std::string image_file(const std::string& name) {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/images/" + name, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string error_message(const Answer& answer) {
  return std::string(answer.json().at("error").at("message").as_string());
}

TEST_F(OneShotTest, EmbedsTextsAndIds) {
  start_all();
  const Answer answer = post("/v1/embeddings", R"({"model":"mini","input":["hello","hello hello"]})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value body = answer.json();
  EXPECT_EQ(body.at("object").as_string(), "list");
  ASSERT_EQ(body.at("data").as_array().size(), 2u);
  EXPECT_EQ(body.at("data").at(1).at("index").as_int64(), 1);
  const auto& tokenizer = *encoder_.served->tokenizer();
  const auto first = tokenizer.encode("hello").ids, second = tokenizer.encode("hello hello").ids;
  EXPECT_EQ(encoder_.engine->seen().at(0).tokens, first);
  EXPECT_EQ(encoder_.engine->seen().at(1).tokens, second);
  EXPECT_EQ(body.at("usage").at("total_tokens").as_int64(), int64_t(first.size() + second.size()));
  EXPECT_EQ(body.at("data").at(0).at("embedding").at(0).to_number<float>(),
            encoder_.engine->answer(encoder_.engine->seen()[0])[0]);

  ASSERT_EQ(post("/embeddings", R"({"model":"text-embedding-3-small","input":[2,5,3]})").status, 200);
  EXPECT_EQ(encoder_.engine->seen().at(0).tokens, (std::vector<int32_t>{2, 5, 3}));
  ASSERT_EQ(post("/v1/embeddings", R"({"input":[[2,3],[2,7,3]]})").status, 200);
  EXPECT_EQ(encoder_.engine->seen().size(), 2u);
}

TEST_F(OneShotTest, EmbeddingsComeAsBase64CutAndNormalised) {
  start_all();
  encoder_.engine->answer = [](const auto&) { return std::vector<float>{3, 4, 12, 0}; };
  const Answer cut = post("/v1/embeddings", R"({"model":"mini","input":"x","dimensions":2})");
  EXPECT_EQ(cut.json().at("data").at(0).at("embedding"), json::parse("[0.6,0.8]"));
  const Answer whole = post("/v1/embeddings", R"({"model":"mini","input":"x"})");
  EXPECT_EQ(whole.json().at("data").at(0).at("embedding"), json::parse("[3,4,12,0]"));
  const Answer unit = post("/v1/embeddings", R"({"model":"mini","input":"x","normalize":true})");
  EXPECT_NEAR(unit.json().at("data").at(0).at("embedding").at(2).as_double(), 12 / 13.0, 1e-6);
  const Answer packed = post("/v1/embeddings", R"({"model":"mini","input":"x","encoding_format":"base64"})");
  const auto bytes = api::decode_base64(packed.json().at("data").at(0).at("embedding").as_string());
  ASSERT_TRUE(bytes && bytes->size() == 16);
  float third;
  std::memcpy(&third, bytes->data() + 8, 4);
  EXPECT_EQ(third, 12);
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"mini","input":"x","dimensions":5})")),
              HasSubstr("at most the model's 4, found 5"));
}

TEST_F(OneShotTest, TooLongIsRefusedOrCutAsAsked) {
  start_all();
  std::string text;
  for (int i = 0; i < 100; ++i) text += "hello ";
  const Answer refused = post("/v1/embeddings", R"({"model":"mini","input":")" + text + "\"}");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json().at("error").at("code").as_string(), "context_length_exceeded");
  EXPECT_THAT(error_message(refused), HasSubstr("at most 32 tokens"));
  ASSERT_EQ(post("/v1/embeddings", R"({"model":"mini","truncate_prompt_tokens":-1,"input":")" + text + "\"}").status,
            200);
  const auto cut = encoder_.engine->seen().at(0).tokens;
  EXPECT_EQ(cut.size(), 32u);
  EXPECT_EQ(cut.back(), encoder_.served->tokenizer()->encode("x").ids.back());  // [SEP] stays
  const Answer tei = post("/embed", R"({"truncate":false,"inputs":")" + text + "\"}");
  EXPECT_EQ(tei.status, 413);
  EXPECT_EQ(tei.json().at("error_type").as_string(), "Validation");
  EXPECT_EQ(post("/embed", R"({"inputs":")" + text + "\"}").status, 200);
}

TEST_F(OneShotTest, SaysWhichModelCannotWhat) {
  start_all();
  EXPECT_EQ(post("/v1/embeddings", R"({"model":"nobody","input":"x"})").status, 404);
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"moods","input":"x"})")),
              HasSubstr("gives no embeddings; it gives scores"));
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"tiny-r1","input":"x"})")), HasSubstr("language model"));
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"mini"})")), HasSubstr("input: expected a string"));
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"mini","input":[]})")), HasSubstr("an empty array"));
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"mini","input":[1,40000]})")),
              HasSubstr("from 0 to 30521, found 40000"));
  EXPECT_THAT(error_message(post("/v1/embeddings", R"({"model":"mini","input":"x","prompt_name":"query"})")),
              HasSubstr("prompts (none)"));
  const Answer chat = post("/v1/chat/completions", R"({"model":"mini","messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(chat.status, 400);
  EXPECT_EQ(chat.json().at("error").at("code").as_string(), "model_not_suitable");
  EXPECT_EQ(error_message(chat), "The model mini generates no text.");
}

TEST_F(OneShotTest, AnUnnamedModelIsOneThatTakesTheInput) {
  start({}, false);
  server_->serve(std::make_shared<FixedCatalogue>(std::vector<LanguagePtr>{},
                                                  std::vector<OneShotPtr>{vision_.served, classifier_.served}));
  classifier_.engine->answer = [](const auto&) { return std::vector<float>{0, 2, 1}; };
  const Answer tei = post("/predict", R"({"inputs":"a"})");
  ASSERT_EQ(tei.status, 200) << tei.body;
  EXPECT_EQ(tei.json().at(0).at("label").as_string(), "neutral");
  const Answer classes = post("/classify", R"({"input":"a"})");
  ASSERT_EQ(classes.status, 200) << classes.body;
  EXPECT_EQ(classes.json().at("model").as_string(), "moods");
}

TEST_F(OneShotTest, RefusalsDeadlinesAndFailuresAreTold) {
  start_all();
  engine::Refusal full;
  full.reason = engine::Refusal::Reason::kQueueRequests;
  full.retry_after_s = 3;
  full.message = "Too many.";
  encoder_.engine->refusal = full;
  const Answer refused = post("/v1/embeddings", R"({"model":"mini","input":"x"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.value_or("Retry-After", ""), "3");
  encoder_.engine->refusal.reset();
  EXPECT_EQ(post("/v1/embeddings", R"({"model":"mini","input":"x"})", {{"X-Request-Deadline", "0"}}).status, 504);
  encoder_.engine->failure = "out of tea";
  const Answer failed = post("/v1/embeddings", R"({"model":"mini","input":"x"})");
  EXPECT_EQ(failed.status, 500);
  EXPECT_THAT(error_message(failed), HasSubstr("out of tea"));
}

TEST_F(OneShotTest, AClientThatLeavesIsCancelled) {
  start_all();
  encoder_.engine->hold = true;
  auto client = open("/v1/embeddings", R"({"model":"mini","input":["a","b"]})");
  eventually([&] { return encoder_.engine->held() == 2; });
  client.reset();
  eventually([&] { return encoder_.engine->cancelled() == 2; });
  eventually([&] { return server_->requests_in_flight() == 0; });
}

TEST_F(OneShotTest, DrainWaitsForWhatWasAccepted) {
  start_all();
  encoder_.engine->hold = true;
  Answer answer;
  std::thread caller([&] { answer = post("/v1/embeddings", R"({"model":"mini","input":"a"})"); });
  eventually([&] { return encoder_.engine->held() == 1; });
  std::thread drain([&] { EXPECT_TRUE(server_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(20))); });
  eventually([&] { return server_->state() == ServerState::kDraining; });
  encoder_.engine->release();
  drain.join();
  caller.join();
  EXPECT_EQ(answer.status, 200);
}

TEST_F(OneShotTest, RerankSpeaksThreeDialects) {
  start_all();
  reranker_.engine->answer = [](const auto& request) { return std::vector<float>{float(request.tokens.size()) - 8}; };
  const Answer jina = post(
      "/v1/rerank",
      R"({"model":"ranker","query":"q","documents":["a",{"text":"a a a a a"},"a a"],"top_n":2,"return_documents":true})");
  ASSERT_EQ(jina.status, 200) << jina.body;
  const json::value body = jina.json();
  ASSERT_EQ(body.at("results").as_array().size(), 2u);
  EXPECT_EQ(body.at("results").at(0).at("index").as_int64(), 1);
  EXPECT_EQ(body.at("results").at(1).at("index").as_int64(), 2);
  EXPECT_EQ(body.at("results").at(0).at("document").at("text").as_string(), "a a a a a");
  const double score = body.at("results").at(0).at("relevance_score").to_number<double>();
  EXPECT_GT(score, 0);
  EXPECT_LT(score, 1);
  EXPECT_EQ(reranker_.engine->seen().at(1).types.back(), 1);

  const Answer tei =
      post("/rerank", R"({"query":"q","texts":["a","a a"],"raw_scores":true,"return_text":true,"model":"ranker"})");
  ASSERT_TRUE(tei.json().is_array()) << tei.body;
  EXPECT_EQ(tei.json().at(0).at("index").as_int64(), 1);
  EXPECT_EQ(tei.json().at(0).at("text").as_string(), "a a");
  EXPECT_EQ(post("/rerank", R"({"query":"q","texts":["a"],"model":"moods"})").json().at("error_type").as_string(),
            "Backend");
  EXPECT_EQ(post("/v2/rerank", R"({"model":"ranker","query":"q","documents":[]})").status, 400);
}

TEST_F(OneShotTest, ScoresPairsByRerankerOrCosine) {
  start_all();
  const Answer ranked = post("/score", R"({"model":"ranker","text_1":"q","text_2":["a","b"]})");
  ASSERT_EQ(ranked.status, 200) << ranked.body;
  EXPECT_EQ(ranked.json().at("data").as_array().size(), 2u);
  encoder_.engine->answer = [](const auto& r) {
    return r.tokens.size() > 3 ? std::vector<float>{0, 1, 0, 0} : std::vector<float>{1, 1, 0, 0};
  };
  const Answer cosine = post("/score", R"({"model":"mini","text_1":["a","a"],"text_2":["a","a a"]})");
  ASSERT_EQ(cosine.status, 200) << cosine.body;
  EXPECT_NEAR(cosine.json().at("data").at(0).at("score").to_number<double>(), 1, 1e-6);
  EXPECT_NEAR(cosine.json().at("data").at(1).at("score").to_number<double>(), std::sqrt(0.5), 1e-6);
  EXPECT_EQ(encoder_.engine->seen().size(), 2u);  // the same text goes in once
}

TEST_F(OneShotTest, ClassifiesTexts) {
  start_all();
  classifier_.engine->answer = [](const auto&) { return std::vector<float>{0, 2, 1}; };
  const Answer answer = post("/classify", R"({"model":"moods","input":["a","b"],"top_k":2})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value first = answer.json().at("data").at(0);
  EXPECT_EQ(first.at("label").as_string(), "neutral");
  EXPECT_NEAR(first.at("probs").at(1).as_double(), 0.66524, 1e-4);
  EXPECT_EQ(first.at("num_classes").as_int64(), 3);
  EXPECT_EQ(first.at("scores").at(1).at("label").as_string(), "positive");
  const Answer tei = post("/predict", R"({"model":"moods","inputs":[["a"],["a","b"]]})");
  ASSERT_EQ(tei.status, 200) << tei.body;
  EXPECT_EQ(tei.json().at(1).at(0).at("label").as_string(), "neutral");
  EXPECT_EQ(classifier_.engine->seen().at(1).types.back(), 1);
  EXPECT_EQ(
      post("/predict", R"({"model":"moods","inputs":"a","raw_scores":true})").json().at(0).at("score").to_number<int>(),
      2);
}

TEST_F(OneShotTest, ClassifiesImagesFromBase64AndForms) {
  start_all();
  vision_.engine->answer = [](const auto& request) { return std::vector<float>{float(request.pixels.size()), 0}; };
  std::string encoded;
  const std::string png = image_file("rgb.png");
  for (const auto& part : {png}) {
    static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < part.size(); i += 3) {
      uint32_t word = 0;
      for (size_t k = 0; k < 3; ++k) word = word << 8 | (i + k < part.size() ? uint8_t(part[i + k]) : 0);
      for (int k = 3; k >= 0; --k) encoded += kDigits[word >> (6 * k) & 63];
    }
    encoded.resize((part.size() * 4 + 2) / 3);
  }
  const Answer json_answer =
      post("/classify", R"({"model":"eyes","images":["data:image/png;base64,)" + encoded + "\"]}");
  ASSERT_EQ(json_answer.status, 200) << json_answer.body;
  EXPECT_EQ(json_answer.json().at("data").at(0).at("label").as_string(), "cat");
  EXPECT_EQ(vision_.engine->seen().at(0).pixels.size(), 3u * 8 * 8);
  const std::string form =
      "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n" +
      image_file("420.jpg") + "\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\neyes\r\n--b--\r\n";
  const Answer form_answer = post("/classify", form, {{"Content-Type", "multipart/form-data; boundary=b"}});
  ASSERT_EQ(form_answer.status, 200) << form_answer.body;
  const Answer corrupt =
      post("/classify", R"({"model":"eyes","image":")" + encoded.substr(0, encoded.size() / 2 / 4 * 4) + "\"}");
  EXPECT_EQ(corrupt.status, 400);
  EXPECT_THAT(error_message(corrupt), HasSubstr("PNG"));
  EXPECT_EQ(post("/classify", R"({"model":"eyes","image":"not base64!"})").status, 400);
  EXPECT_EQ(post("/classify", "--b\r\nnothing", {{"Content-Type", "multipart/form-data; boundary=b"}}).status, 400);
}

TEST_F(OneShotTest, TeiEmbeds) {
  start_all();
  encoder_.engine->answer = [](const auto& r) {
    if (r.output == models::OneShotOutput::kTokenVectors) return std::vector<float>(r.tokens.size() * 4, 0.5f);
    if (r.output == models::OneShotOutput::kSparse) return std::vector<float>{0, 0.5f, 0, 2};
    return std::vector<float>{3, 4, 0, 0};
  };
  EXPECT_EQ(post("/embed", R"({"inputs":"a"})").json(), json::parse("[[0.6,0.8,0,0]]"));
  EXPECT_EQ(post("/embed", R"({"inputs":["a","b"],"normalize":false})").json(), json::parse("[[3,4,0,0],[3,4,0,0]]"));
  const json::value all = post("/embed_all", R"({"inputs":"hello"})").json();
  EXPECT_EQ(all.at(0).as_array().size(), encoder_.served->tokenizer()->encode("hello").ids.size());
  EXPECT_EQ(all.at(0).at(0), json::parse("[0.5,0.5,0.5,0.5]"));
  EXPECT_EQ(post("/embed_sparse", R"({"inputs":"a"})").json(),
            json::parse(R"([[{"index":1,"value":0.5},{"index":3,"value":2}]])"));
  EXPECT_EQ(post("/similarity", R"({"inputs":{"source_sentence":"a","sentences":["a","b"]}})").json(),
            json::parse("[1,1]"));
  const json::value info = get("/info").json();
  EXPECT_EQ(info.at("model_id").as_string(), "mini");
  EXPECT_EQ(info.at("max_input_length").as_int64(), 32);
  EXPECT_EQ(post("/embed", R"({"inputs":[]})").json().at("error_type").as_string(), "Validation");
}

TEST_F(OneShotTest, TensorFlowServingPredictsAndTellsItsStatus) {
  start_all();
  encoder_.engine->answer = [](const auto&) { return std::vector<float>{1, 2, 3, 4}; };
  EXPECT_EQ(post("/v1/models/mini:predict", R"({"instances":["a",{"text":"b"},[2,3]]})").json(),
            json::parse(R"({"predictions":[[1,2,3,4],[1,2,3,4],[1,2,3,4]]})"));
  EXPECT_EQ(post("/v1/models/mini/versions/1:predict", R"({"inputs":{"text":["a"]}})").json(),
            json::parse(R"({"outputs":[[1,2,3,4]]})"));
  EXPECT_EQ(post("/v1/models/mini/versions/9:predict", R"({"instances":["a"]})").status, 404);
  EXPECT_EQ(post("/v1/models/eyes:predict", R"({"instances":["a"]})").json().at("error").as_string(),
            "instances: expected images, found text");
  const json::value status = get("/v1/models/mini").json();
  EXPECT_EQ(status.at("id").as_string(), "mini");
  EXPECT_EQ(status.at("model_version_status").at(0).at("state").as_string(), "AVAILABLE");
  EXPECT_EQ(get("/v1/models/mini/metadata").json().at("model_spec").at("name").as_string(), "mini");
  EXPECT_EQ(get("/v1/models").json().at("data").as_array().size(), 7u);
}

TEST_F(OneShotTest, ReloadedBoundsReachTheEngines) {
  start_all();
  EXPECT_EQ(encoder_.engine->bounds.requests_max, engine::QueueBounds().requests_max);
  AdmissionBounds bounds;
  ASSERT_TRUE(server_->reload({}, "", bounds).ok());
  encoder_.engine->bounds.requests_max = 3;  // its own
  ASSERT_TRUE(server_->reload({}, "", bounds).ok());
  EXPECT_EQ(encoder_.engine->bounds.requests_max, 3);
  bounds.queue_requests_max = 77;
  ASSERT_TRUE(server_->reload({}, "", bounds).ok());
  EXPECT_EQ(encoder_.engine->bounds.requests_max, 77);
}

TEST_F(OneShotTest, OtherMethodsOnAPathAreTold) {
  start_all();
  EXPECT_EQ(get("/v1/embeddings").status, 405);
  EXPECT_EQ(get("/v2/models/mini/infer").status, 405);
  EXPECT_EQ(post("/v2/nothing", "{}").status, 404);
}

}  // namespace
}  // namespace spillway::server
