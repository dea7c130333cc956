// The repository over fake models: versions come and go while requests run, and none is dropped.
#include "server/model_repository.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/testing/fake_one_shot_model.h"

namespace spillway::server {
namespace {

using namespace std::chrono_literals;
using Outcome = engine::OneShotAnswer::Outcome;

// A model whose files the test changes.
struct Shelf {
  std::vector<ModelRepository::Candidate> candidates = {{"1", "a"}};
  std::atomic<bool> broken = false;
  std::atomic<int> loads = 0;
  int64_t bytes = 100;
};

ModelRepository::Source source_of(const std::string& name, Shelf& shelf) {
  ModelRepository::Source source;
  source.name = name;
  source.aliases = {name + "-alias"};
  source.scan = [&shelf]() -> Result<std::vector<ModelRepository::Candidate>> { return shelf.candidates; };
  source.bytes_needed = [&shelf](const auto&) -> Result<int64_t> { return shelf.bytes; };
  source.load = [&shelf, name](const ModelRepository::Candidate& candidate) -> Result<LoadedVersion> {
    ++shelf.loads;
    if (shelf.broken) return corrupt("the file ends early");
    engine::OneShotEngineOptions options;
    options.name = name;
    options.threads = 1;
    options.warm_up_s = 0;
    auto model = std::make_unique<engine::testing::FakeOneShotModel>(engine::testing::FakeOneShotModel::Options{
        .vision = true, .on_run = [](auto) { std::this_thread::sleep_for(200us); }});
    SW_ASSIGN(auto engine, engine::start_one_shot_engine(std::move(model), options));
    LoadedVersion loaded;
    ServedOneShotOptions served{name, candidate.version, {}, ""};
    SW_ASSIGN(loaded.one_shot, ServedOneShot::make(served, std::move(engine)));
    loaded.bytes = shelf.bytes;
    return loaded;
  };
  return source;
}

std::unique_ptr<ModelRepository> repository(std::vector<ModelRepository::Source> sources,
                                            ModelRepository::Options options = {}) {
  return std::make_unique<ModelRepository>(std::move(sources), std::move(options));
}

std::vector<ModelRepository::Source> one(ModelRepository::Source source) {
  std::vector<ModelRepository::Source> sources;
  sources.push_back(std::move(source));
  return sources;
}

// One request through to its answer.
Outcome ask(const VersionPtr& version) {
  auto promise = std::make_shared<std::promise<Outcome>>();
  std::vector<engine::OneShotRequest> requests(1);
  requests[0].pixels.assign(8, 1.0f);
  std::vector<engine::OneShotDone> done;
  done.push_back([promise](engine::OneShotAnswer answer) { promise->set_value(answer.outcome); });
  engine::OneShotId id;
  if (version->one_shot->engine().submit(std::move(requests), std::move(done), id)) return Outcome::kFailed;
  return promise->get_future().get();
}

bool soon(auto&& what) {
  for (int i = 0; i < 500; ++i) {
    if (what()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

TEST(ModelRepository, LoadsFindsAndUnloads) {
  Shelf shelf;
  shelf.candidates = {{"1", "a"}, {"2", "a"}};
  auto models = repository(one(source_of("bert", shelf)));
  EXPECT_EQ(models->find("bert"), nullptr);
  ASSERT_TRUE(models->start().ok());
  EXPECT_EQ(models->find("bert")->version, "2");
  EXPECT_EQ(models->find("bert-alias", "1")->version, "1");
  EXPECT_EQ(models->find("bert", "3"), nullptr);
  EXPECT_EQ(models->acquire("bert", "3").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(models->acquire("vit").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(models->memory_used(), 200);
  ASSERT_EQ(models->index().size(), 2u);
  EXPECT_EQ(models->index()[0].state, VersionState::kReady);

  ASSERT_TRUE(models->unload("bert").ok());
  EXPECT_EQ(models->find("bert"), nullptr);
  EXPECT_EQ(models->index()[0].reason, "unloaded");
  EXPECT_EQ(models->acquire("bert").error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(soon([&] { return models->memory_used() == 0; }));
}

TEST(ModelRepository, AReloadOfTheSameFilesIsNone) {
  Shelf shelf;
  auto models = repository(one(source_of("bert", shelf)));
  ASSERT_TRUE(models->start().ok());
  ASSERT_TRUE(models->load("bert").ok());
  EXPECT_EQ(shelf.loads, 1);
}

TEST(ModelRepository, ReloadsUnderLoadDropNothing) {
  Shelf shelf;
  auto models = repository(one(source_of("bert", shelf)));
  ASSERT_TRUE(models->start().ok());
  std::atomic<bool> stop = false;
  std::atomic<int> answered = 0, failed = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      while (!stop) {
        const VersionPtr version = models->find("bert");
        (version && ask(version) == Outcome::kDone ? answered : failed) += 1;
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    shelf.candidates = {{std::to_string(2 + i / 2), std::to_string(i)}};
    ASSERT_TRUE(models->load("bert").ok());
    const int before = answered;
    EXPECT_TRUE(soon([&] { return answered > before + 5; }));
  }
  stop = true;
  for (auto& client : clients) client.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(shelf.loads, 11);
  EXPECT_EQ(models->find("bert")->version, "6");
  EXPECT_TRUE(soon([&] { return models->memory_used() == 100; }));
}

TEST(ModelRepository, TheOldVersionAnswersWhenTheNewOneDoesNotLoad) {
  Shelf shelf;
  auto models = repository(one(source_of("bert", shelf)));
  ASSERT_TRUE(models->start().ok());
  shelf.broken = true;
  shelf.candidates = {{"1", "b"}};
  const Status reloaded = models->load("bert");
  ASSERT_FALSE(reloaded.ok());
  EXPECT_EQ(reloaded.error().message, "bert version 1: the file ends early");
  ASSERT_NE(models->find("bert"), nullptr);
  EXPECT_EQ(ask(models->find("bert")), Outcome::kDone);
  EXPECT_EQ(models->index()[0].state, VersionState::kReady);
  EXPECT_EQ(models->index()[0].reason, "the file ends early");
  shelf.candidates = {{"2", "b"}};
  EXPECT_FALSE(models->load("bert").ok());
  EXPECT_EQ(models->find("bert")->version, "1");
  shelf.broken = false;
  ASSERT_TRUE(models->load("bert").ok());
  EXPECT_EQ(models->find("bert")->version, "2");
}

TEST(ModelRepository, EvictsTheIdleAndBringsThemBack) {
  Shelf shelf;
  auto models = repository(one(source_of("bert", shelf)), {.idle_timeout_s = 0.05});
  ASSERT_TRUE(models->start().ok());
  VersionPtr held = models->find("bert");
  std::this_thread::sleep_for(150ms);
  EXPECT_EQ(models->index()[0].state, VersionState::kReady) << "in use";
  held = nullptr;
  ASSERT_TRUE(soon([&] { return models->index()[0].state == VersionState::kEvicted; }));
  EXPECT_EQ(models->memory_used(), 0);
  EXPECT_EQ(models->find("bert"), nullptr);
  auto back = models->acquire("bert");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(ask(*back), Outcome::kDone);
  EXPECT_EQ(shelf.loads, 2);
}

TEST(ModelRepository, AccountsMemoryBeforeLoading) {
  Shelf a, b, c;
  c.bytes = 500;
  std::vector<ModelRepository::Source> sources;
  sources.push_back(source_of("a", a));
  sources.push_back(source_of("b", b));
  sources.push_back(source_of("c", c));
  for (auto& source : sources) source.load_at_start = false;
  auto models = repository(std::move(sources), {.memory_bytes_max = 250});
  ASSERT_TRUE(models->load("a").ok());
  ASSERT_TRUE(models->load("b").ok());
  b.bytes = 200;
  b.candidates = {{"1", "larger"}};
  // The old b answers until the new one is there: 100 + 200 do not fit, and evicting a would not help.
  const Status too_large = models->load("b");
  ASSERT_FALSE(too_large.ok());
  EXPECT_EQ(too_large.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(models->find("b"), nullptr);
  EXPECT_NE(models->find("a"), nullptr);
  EXPECT_FALSE(models->load("c").ok());
  EXPECT_EQ(c.loads, 0);
  b.bytes = 140;
  ASSERT_TRUE(models->load("b").ok());
  EXPECT_EQ(models->find("a"), nullptr) << "the idlest went for it";
  EXPECT_TRUE(soon([&] { return models->memory_used() == 140; }));
  auto back = models->acquire("a");
  ASSERT_TRUE(back.ok()) << back.error().message;
}

TEST(ModelRepository, TakesOverAnotherListUnderLoad) {
  Shelf kept, changed, gone, added;
  std::vector<ModelRepository::Source> before, after;
  before.push_back(source_of("kept", kept));
  before.push_back(source_of("changed", changed));
  before.push_back(source_of("gone", gone));
  const auto models = repository(std::move(before));
  ASSERT_TRUE(models->start().ok());
  std::atomic<bool> stop = false;
  std::atomic<int> answered = 0, failed = 0;
  std::thread client([&] {
    while (!stop) {
      for (const char* name : {"kept", "changed"}) {
        const VersionPtr version = models->find(name);
        ++(version != nullptr && ask(version) == Outcome::kDone ? answered : failed);
      }
    }
  });
  after.push_back(source_of("changed", changed));
  after.push_back(source_of("added", added));
  after.push_back(source_of("kept", kept));
  EXPECT_TRUE(models->take_over(std::move(after), {"changed"}).ok());
  EXPECT_TRUE(soon([&, from = answered.load()] { return answered > from + 20; }));
  stop = true;
  client.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(kept.loads, 1);
  EXPECT_EQ(changed.loads, 2);
  EXPECT_FALSE(models->contains("gone"));
  EXPECT_FALSE(models->contains("gone-alias"));
  EXPECT_NE(models->find("added"), nullptr);
  EXPECT_EQ(models->index().size(), 3u);
  // What went comes back; a new one that does not load leaves the others.
  added.broken = true;
  after.clear();
  after.push_back(source_of("gone", gone));
  after.push_back(source_of("added", added));
  EXPECT_FALSE(models->take_over(std::move(after), {"added"}).ok());
  EXPECT_EQ(ask(models->find("gone")), Outcome::kDone);
  EXPECT_EQ(ask(models->find("added")), Outcome::kDone);
  EXPECT_FALSE(models->contains("kept"));
}

TEST(ModelRepository, TellsOfAFirstLoadThatFails) {
  Shelf shelf;
  shelf.broken = true;
  auto models = repository(one(source_of("bert", shelf)));
  EXPECT_EQ(models->start().error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(models->index()[0].state, VersionState::kUnavailable);
  EXPECT_NE(models->acquire("bert").error().message.find("the file ends early"), std::string::npos);
}

}  // namespace
}  // namespace spillway::server
