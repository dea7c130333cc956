// Language models that are evicted and brought back, as requests over HTTP see it: nothing under way is dropped, and
// who cannot be answered in time hears when to come back.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>

#include "server/repository_catalogue.h"
#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

using namespace std::chrono_literals;

// Loads fake language models, and lets the test reach the engine of the newest load.
struct Shelf {
  std::string name;
  std::atomic<int> loads = 0;
  std::atomic<bool> broken = false;
  std::atomic<bool> hold = false;  // its engines keep requests until they are let go
  std::atomic<int> load_ms = 0;
  std::atomic<FakeEngine*> engine = nullptr;

  explicit Shelf(std::string named) : name(std::move(named)) {}

  ModelRepository::Source source() {
    ModelRepository::Source source;
    source.name = name;
    source.aliases = {name + "-alias"};
    source.scan = []() -> Result<std::vector<ModelRepository::Candidate>> {
      return std::vector<ModelRepository::Candidate>{{"1", "same"}};
    };
    source.bytes_needed = [](const auto&) -> Result<int64_t> { return 100; };
    source.load = [this](const ModelRepository::Candidate&) -> Result<LoadedVersion> {
      ++loads;
      std::this_thread::sleep_for(std::chrono::milliseconds(load_ms));
      if (broken) return corrupt("the file ends early");
      TestModel model = make_model("thinking</think>\nThis is " + name, tiny_text(), name);
      model.engine->hold = hold;
      engine = model.engine;
      LoadedVersion loaded;
      loaded.language = std::move(model.served);
      loaded.bytes = 100;
      return loaded;
    };
    return source;
  }
};

class ModelEviction : public ServerTest {
 protected:
  void begin(ModelRepository::Options options) {
    start({}, false);
    options.changed = [this] { publish(); };
    std::vector<ModelRepository::Source> sources;
    sources.push_back(a_.source());
    sources.push_back(b_.source());
    if (options.memory_bytes_max > 0) sources[1].load_at_start = false;
    repository_ = std::make_unique<ModelRepository>(std::move(sources), std::move(options));
    ASSERT_TRUE(repository_->start().ok());
    publish();
  }
  void TearDown() override {
    for (Shelf* shelf : {&a_, &b_}) {
      if (shelf->hold && shelf->engine != nullptr) shelf->engine.load()->release();
    }
    {
      std::lock_guard lock(publishing_);
      closed_ = true;
    }
    server_.reset();
    repository_.reset();
  }
  void publish() {
    std::lock_guard lock(publishing_);
    if (!closed_ && repository_) server_->serve(std::make_shared<RepositoryCatalogue>(*repository_));
  }
  Answer chat(const std::string& model, net::Headers headers = {}) {
    return post("/v1/chat/completions",
                R"({"model":")" + model + R"(","messages":[{"role":"user","content":"Who is this?"}]})",
                std::move(headers));
  }
  static std::string text_of(const Answer& answer) {
    return std::string(answer.json().at("choices").at(0).at("message").at("content").as_string());
  }
  VersionState state_of(const std::string& name) const {
    for (const VersionStatus& status : repository_->index()) {
      if (status.name == name) return status.state;
    }
    return VersionState::kUnavailable;
  }

  Shelf a_{"a"}, b_{"b"};
  std::mutex publishing_;
  bool closed_ = false;
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ModelEviction, AnIdleLanguageModelGoesAndComesBack) {
  begin({.idle_timeout_s = 0.05});
  eventually([&] { return state_of("a") == VersionState::kEvicted && state_of("b") == VersionState::kEvicted; });
  EXPECT_EQ(repository_->memory_used(), 0);
  EXPECT_EQ(get("/health/ready").status, 200);
  // What is evicted is offered all the same, and asking about it does not bring it back.
  const auto listed = get("/v1/models").json().at("data").as_array();
  ASSERT_EQ(listed.size(), 4u);
  EXPECT_EQ(listed[0].at("id").as_string(), "a");
  EXPECT_EQ(listed[0].at("max_model_len").as_int64(), 2048);
  EXPECT_EQ(get("/v1/models/b-alias").status, 200);
  EXPECT_EQ(a_.loads + b_.loads, 2);

  const Answer answer = chat("a-alias");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_NE(text_of(answer).find("This is a"), std::string::npos);
  EXPECT_EQ(a_.loads, 2);
  EXPECT_EQ(b_.loads, 1);
  eventually([&] { return state_of("a") == VersionState::kEvicted; });
  EXPECT_EQ(post("/tokenize", R"({"model":"b","prompt":"x"})").status, 200);
  EXPECT_EQ(b_.loads, 2);
  EXPECT_EQ(chat("c").status, 404);
}

TEST_F(ModelEviction, ManyRequestsWaitForOneLoad) {
  a_.load_ms = 50;
  begin({.idle_timeout_s = 0.3});
  eventually([&] { return state_of("a") == VersionState::kEvicted; });
  std::atomic<int> answered = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) clients.emplace_back([&] { answered += chat("a").status == 200; });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 8);
  EXPECT_EQ(a_.loads, 2);
}

TEST_F(ModelEviction, AModelInUseIsNotEvictedForAnother) {
  a_.hold = true;
  begin({.memory_bytes_max = 150, .wait_max_s = 20});
  auto under_way = std::async(std::launch::async, [&] { return chat("a").status; });
  eventually([&] { return a_.engine.load()->live() == 1; });
  // b has no room before a's answer has ended: it waits, and neither is dropped.
  ASSERT_EQ(repository_->load("b").error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(state_of("a"), VersionState::kReady);
  a_.engine.load()->release();
  EXPECT_EQ(under_way.get(), 200);
  ASSERT_TRUE(repository_->load("b").ok());
  EXPECT_EQ(state_of("a"), VersionState::kEvicted);

  a_.hold = false;
  EXPECT_EQ(chat("a").status, 200);
  EXPECT_EQ(state_of("b"), VersionState::kEvicted);
  EXPECT_EQ(chat("b").status, 200);
  EXPECT_EQ(state_of("a"), VersionState::kEvicted);
  EXPECT_LE(repository_->memory_used(), 150);
}

TEST_F(ModelEviction, ModelsThatTakeTurnsAnswerEverybody) {
  begin({.memory_bytes_max = 150, .wait_max_s = 20});
  EXPECT_TRUE(repository_->load("b").ok());
  std::atomic<int> answered = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      for (int k = 0; k < 20; ++k) {
        const Answer answer = chat((i + k) % 2 == 0 ? "a" : "b");
        EXPECT_EQ(answer.status, 200) << answer.body;
        answered += answer.status == 200;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 80);
  EXPECT_GE(a_.loads + b_.loads, 4);
}

TEST_F(ModelEviction, WhoCannotBeAnsweredInTimeHearsWhenToComeBack) {
  begin({.memory_bytes_max = 150, .wait_max_s = 0.1});
  ASSERT_TRUE(repository_->load("b").ok());
  ASSERT_EQ(state_of("a"), VersionState::kEvicted);
  const LanguagePtr held = server_->catalogue()->find_language("b");
  const Answer refused = chat("a");
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.headers.contains("Retry-After"));
  EXPECT_NE(refused.body.find("needs 0.0 MiB"), std::string::npos) << refused.body;
  EXPECT_EQ(a_.loads, 1);
  EXPECT_EQ(state_of("a"), VersionState::kEvicted);
}

TEST_F(ModelEviction, ADeadlineBeforeTheLoadsEndIsRefusedAtOnceAndTheModelComesBack) {
  a_.load_ms = 200;
  begin({.idle_timeout_s = 0.5});
  eventually([&] { return state_of("a") == VersionState::kEvicted; });
  const Answer refused = chat("a", {{"X-Request-Deadline", "100"}});
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_TRUE(refused.headers.contains("Retry-After"));
  eventually([&] { return state_of("a") == VersionState::kReady; });
  EXPECT_EQ(a_.loads, 2);
}

TEST_F(ModelEviction, AModelThatDoesNotComeBackSaysWhyAndIsTriedAgain) {
  begin({.idle_timeout_s = 0.05});
  eventually([&] { return state_of("a") == VersionState::kEvicted; });
  a_.broken = true;
  const Answer refused = chat("a");
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.body.find("the file ends early"), std::string::npos) << refused.body;
  a_.broken = false;
  EXPECT_EQ(chat("a").status, 200);
}

}  // namespace
}  // namespace spillway::server
