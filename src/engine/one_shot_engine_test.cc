// The engine in service over a fake model: answers, refusals, cancellation, deadlines, priorities, draining, turns on a
// shared device. The model waits for the test, so that what is under way is known.
#include "engine/one_shot_engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "engine/batching/device_share.h"
#include "engine/testing/fake_one_shot_model.h"

namespace spillway::engine {
namespace {

using namespace std::chrono_literals;
using testing::FakeOneShotModel;
using Outcome = OneShotAnswer::Outcome;

// Lets batches through one by one.
class Gate {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_ || passes_ > 0; });
    if (!open_) --passes_;
  }
  void pass(int batches = 1) {
    change([&] { passes_ += batches; });
  }
  void open() {
    change([&] { open_ = true; });
  }
  void wait_for_arrivals(int count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, 10s, [&] { return arrived_ >= count; }));
  }

 private:
  void change(auto&& how) {
    std::lock_guard lock(mutex_);
    how();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0, passes_ = 0;
  bool open_ = false;
};

OneShotRequest text(std::vector<int32_t> tokens) {
  OneShotRequest request;
  request.tokens = std::move(tokens);
  return request;
}

struct Sent {
  std::optional<Refusal> refusal;
  OneShotId first = 0;
  std::vector<std::future<OneShotAnswer>> answers;
};

Sent send(OneShotEngine& engine, std::vector<OneShotRequest> requests) {
  Sent sent;
  std::vector<OneShotDone> done;
  for (size_t i = 0; i < requests.size(); ++i) {
    auto promise = std::make_shared<std::promise<OneShotAnswer>>();
    sent.answers.push_back(promise->get_future());
    done.push_back([promise](OneShotAnswer answer) { promise->set_value(std::move(answer)); });
  }
  sent.refusal = engine.submit(std::move(requests), std::move(done), sent.first);
  return sent;
}

Sent send(OneShotEngine& engine, OneShotRequest request) {
  std::vector<OneShotRequest> requests;
  requests.push_back(std::move(request));
  return send(engine, std::move(requests));
}

OneShotAnswer get(std::future<OneShotAnswer>& answer) {
  EXPECT_EQ(answer.wait_for(10s), std::future_status::ready);
  return answer.get();
}

class OneShotEngineTest : public ::testing::Test {
 protected:
  void start(OneShotEngineOptions options = {}, FakeOneShotModel::Options fake = {}) {
    fake.on_run = [this](std::span<const models::OneShotInput> batch) {
      sizes_.push_back(int(batch.size()));
      gate_.wait();
    };
    options.name = "fake";
    options.threads = 1;
    options.warm_up_s = 0;
    auto engine = start_one_shot_engine(std::make_unique<FakeOneShotModel>(std::move(fake)), options);
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    engine_ = std::move(engine).value();
  }
  void TearDown() override { gate_.open(); }

  Gate gate_;
  std::vector<int> sizes_;
  std::unique_ptr<OneShotEngine> engine_;
};

TEST_F(OneShotEngineTest, AnswersEachInputOfABatch) {
  start();
  gate_.open();
  Sent sent = send(*engine_, [] {
    std::vector<OneShotRequest> requests;
    requests.push_back(text({7, 1}));
    requests.push_back(text({9, 2, 3}));
    return requests;
  }());
  ASSERT_FALSE(sent.refusal);
  EXPECT_EQ(get(sent.answers[0]).values, (std::vector<float>{7, 8}));
  const OneShotAnswer second = get(sent.answers[1]);
  EXPECT_EQ(second.values, (std::vector<float>{9, 14}));
  EXPECT_EQ(second.batch_inputs, 2);
  ASSERT_TRUE(engine_->drain(std::chrono::steady_clock::now() + 5s));
  const OneShotStatistics statistics = engine_->statistics();
  EXPECT_EQ(statistics.inputs, 2u);
  EXPECT_EQ(statistics.batches, 1u);
  EXPECT_EQ(statistics.compute_by_size.at(2).count, 1u);
}

TEST_F(OneShotEngineTest, WhatWaitsWhileABatchRunsSharesTheNext) {
  start();
  Sent first = send(*engine_, text({1}));
  gate_.wait_for_arrivals(1);
  std::vector<Sent> rest;
  for (int i = 0; i < 20; ++i) rest.push_back(send(*engine_, text({i})));
  EXPECT_EQ(engine_->state().waiting, 20);
  EXPECT_TRUE(engine_->state().busy);
  gate_.open();
  get(first.answers[0]);
  for (Sent& sent : rest) EXPECT_EQ(get(sent.answers[0]).outcome, Outcome::kDone);
  EXPECT_EQ(sizes_, (std::vector<int>{1, 16, 4}));
}

TEST_F(OneShotEngineTest, RefusesWhatItCannotDoAndWhatItHasNoRoomFor) {
  OneShotEngineOptions options;
  options.queue.requests_max = 3;
  start(options);
  EXPECT_EQ(send(*engine_, text({})).refusal->reason, Refusal::Reason::kInvalid);
  EXPECT_EQ(send(*engine_, text({100})).refusal->reason, Refusal::Reason::kInvalid);
  EXPECT_EQ(send(*engine_, text(std::vector<int32_t>(513, 1))).refusal->reason, Refusal::Reason::kTooLong);
  OneShotRequest sparse = text({1});
  sparse.output = models::OneShotOutput::kSparse;
  EXPECT_EQ(send(*engine_, std::move(sparse)).refusal->reason, Refusal::Reason::kInvalid);
  OneShotRequest pixels;
  pixels.pixels = {1, 2};
  EXPECT_EQ(send(*engine_, std::move(pixels)).refusal->reason, Refusal::Reason::kInvalid);

  Sent running = send(*engine_, text({1}));
  gate_.wait_for_arrivals(1);
  std::vector<Sent> waiting;
  for (int i = 0; i < 3; ++i) waiting.push_back(send(*engine_, text({1})));
  const Sent refused = send(*engine_, text({1}));
  ASSERT_TRUE(refused.refusal);
  EXPECT_EQ(refused.refusal->reason, Refusal::Reason::kQueueRequests);
  EXPECT_EQ(refused.refusal->found, 4);
  EXPECT_GE(refused.refusal->retry_after_s, 0.1);
  gate_.open();
  for (Sent& sent : waiting) EXPECT_EQ(get(sent.answers[0]).outcome, Outcome::kDone);
}

TEST_F(OneShotEngineTest, CancelledAndLateInputsEndWithoutBeingComputed) {
  start();
  Sent running = send(*engine_, text({1}));
  gate_.wait_for_arrivals(1);
  Sent cancelled = send(*engine_, text({2}));
  OneShotRequest late = text({3});
  late.deadline = std::chrono::steady_clock::now() + 5ms;
  Sent timed_out = send(*engine_, std::move(late));
  Sent stays = send(*engine_, text({4}));
  engine_->cancel(cancelled.first, 1);
  std::this_thread::sleep_for(10ms);
  gate_.open();
  EXPECT_EQ(get(cancelled.answers[0]).outcome, Outcome::kCancelled);
  EXPECT_EQ(get(timed_out.answers[0]).outcome, Outcome::kDeadline);
  EXPECT_EQ(get(stays.answers[0]).outcome, Outcome::kDone);
  EXPECT_EQ(sizes_, (std::vector<int>{1, 1}));
}

TEST_F(OneShotEngineTest, HigherPrioritiesGoFirst) {
  start({}, {.inputs_max = 1});
  Sent running = send(*engine_, text({1}));
  gate_.wait_for_arrivals(1);
  std::mutex mutex;
  std::vector<int> order;
  OneShotId id;
  std::vector<std::future<void>> all;
  for (const int priority : {-1, 0, 1}) {
    auto promise = std::make_shared<std::promise<void>>();
    all.push_back(promise->get_future());
    std::vector<OneShotRequest> requests;
    requests.push_back(text({2}));
    requests[0].priority = static_cast<Priority>(priority);
    std::vector<OneShotDone> done;
    done.push_back([&, priority, promise](OneShotAnswer) {
      {
        std::lock_guard lock(mutex);
        order.push_back(priority);
      }
      promise->set_value();
    });
    ASSERT_FALSE(engine_->submit(std::move(requests), std::move(done), id));
  }
  gate_.open();
  for (auto& one : all) one.wait();
  EXPECT_EQ(order, (std::vector<int>{1, 0, -1}));
}

TEST_F(OneShotEngineTest, DrainsAndThenRefuses) {
  start();
  Sent running = send(*engine_, text({1}));
  gate_.wait_for_arrivals(1);
  EXPECT_FALSE(engine_->drain(std::chrono::steady_clock::now() + 10ms));
  EXPECT_EQ(send(*engine_, text({1})).refusal->reason, Refusal::Reason::kDraining);
  gate_.open();
  EXPECT_TRUE(engine_->drain(std::chrono::steady_clock::now() + 10s));
  EXPECT_EQ(get(running.answers[0]).outcome, Outcome::kDone);
}

TEST_F(OneShotEngineTest, EndsWhatWaitsWhenItGoes) {
  start();
  Sent running = send(*engine_, text({1}));
  gate_.wait_for_arrivals(1);
  Sent waiting = send(*engine_, text({1}));
  std::thread gone([&] { engine_.reset(); });
  std::this_thread::sleep_for(300ms);  // until it waits for the batch
  gate_.open();
  gone.join();
  EXPECT_EQ(get(running.answers[0]).outcome, Outcome::kDone);
  EXPECT_EQ(get(waiting.answers[0]).outcome, Outcome::kCancelled);
}

TEST(OneShotEngine, WarmsUpBeforeItServesAndAnswersImages) {
  std::atomic<int> batches = 0;
  FakeOneShotModel::Options fake{.vision = true, .on_run = [&](auto) { ++batches; }};
  OneShotEngineOptions options;
  options.threads = 1;
  auto engine = start_one_shot_engine(std::make_unique<FakeOneShotModel>(fake), options);
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ(batches, 1 + 3 * 5);  // the first touch, then 1, 2, 4, 8, 16 three times each
  OneShotRequest image;
  image.pixels = {1, 2, 3, 4, 5, 6, 7, 8};
  Sent sent = send(**engine, std::move(image));
  EXPECT_EQ(get(sent.answers[0]).values, (std::vector<float>{1, 36}));
}

TEST(OneShotEngine, AFailingModelFailsItsBatchAlone) {
  bool fail = true;
  FakeOneShotModel::Options fake{.on_run = [&](auto) {
    if (std::exchange(fail, false)) throw std::runtime_error("no memory");
  }};
  OneShotEngineOptions options;
  options.threads = 1;
  options.warm_up_s = 0;
  auto engine = start_one_shot_engine(std::make_unique<FakeOneShotModel>(fake), options);
  Sent failed = send(**engine, text({1}));
  const OneShotAnswer answer = get(failed.answers[0]);
  EXPECT_EQ(answer.outcome, Outcome::kFailed);
  EXPECT_NE(answer.message.find("no memory"), std::string::npos);
  Sent next = send(**engine, text({1}));
  EXPECT_EQ(get(next.answers[0]).outcome, Outcome::kDone);
}

TEST(OneShotEngine, PreparesForEachSizeOfTheModelBeforeRequestsCome) {
  std::vector<int64_t> costs;
  FakeOneShotModel::Options fake{.cost_max = 400, .inputs_max = 3, .on_run = [&](auto batch) {
                                   costs.push_back(0);
                                   for (const models::OneShotInput& input : batch) costs.back() += input.cost();
                                 }};
  fake.prepared_costs = {16, 144, 300, 390, 500};  // the last two: four inputs, more than a batch holds
  OneShotEngineOptions options;
  options.threads = 1;
  options.warm_up_s = 10;
  const auto engine = start_one_shot_engine(std::make_unique<FakeOneShotModel>(fake), options);
  ASSERT_TRUE(engine.ok());
  ASSERT_GE(costs.size(), 3u);
  EXPECT_EQ(std::vector<int64_t>(costs.end() - 3, costs.end()), (std::vector<int64_t>{16, 144, 300}));
  EXPECT_EQ(costs[costs.size() - 4], 3 * 128);  // the largest that was measured
}

// Two engines that always have work: their shares of the device follow their weights.
TEST(DeviceShareTest, TurnsFollowTheWeights) {
  auto share = std::make_shared<DeviceShare>();
  const DeviceShare::Member holder = share->join(1);
  share->acquire(holder);  // until both have their work
  std::atomic<int> inside = 0;
  std::atomic<bool> overlapped = false;
  std::array<std::atomic<int64_t>, 2> batches{};
  std::array<std::unique_ptr<OneShotEngine>, 2> engines;
  for (size_t i = 0; i < 2; ++i) {
    FakeOneShotModel::Options fake{.inputs_max = 1, .on_run = [&, i](auto) {
                                     if (++inside > 1) overlapped = true;
                                     std::this_thread::sleep_for(1ms);
                                     --inside;
                                     ++batches[i];
                                   }};
    OneShotEngineOptions options;
    options.threads = 1;
    options.warm_up_s = 0;
    options.share = share;
    options.weight = i == 0 ? 3 : 1;
    engines[i] = std::move(start_one_shot_engine(std::make_unique<FakeOneShotModel>(fake), options)).value();
  }
  std::array<std::vector<Sent>, 2> sent;
  for (int n = 0; n < 300; ++n) {
    for (size_t i = 0; i < 2; ++i) sent[i].push_back(send(*engines[i], text({1})));
  }
  share->release(holder, 0, false);
  while (batches[0] < 200) std::this_thread::sleep_for(1ms);
  // Time is shared out, whatever the batches take; the engines are the members after the holder.
  const double first_s = share->used_s(holder + 1), second_s = share->used_s(holder + 2);
  EXPECT_FALSE(overlapped);
  EXPECT_NEAR(second_s / first_s, 1.0 / 3, 0.1);
}

// A model with two slots, whose batches take 4 ms: what waits goes behind the batch under way, before that one's
// answers.
class BatchBehindTest : public ::testing::Test {
 protected:
  void start(std::shared_ptr<DeviceShare> share = nullptr) {
    FakeOneShotModel::Options fake{.cost_max = 16, .inputs_max = 4, .slots = 2};
    fake.on_run = [this](std::span<const models::OneShotInput> batch) {
      std::this_thread::sleep_for(4ms);
      if (!ready_) return;
      answered_.push_back(ended_);
      for (const auto& input : batch) {
        if (input.tokens[0] == kFails) throw std::runtime_error("as asked for");
      }
    };
    OneShotEngineOptions options;
    options.name = "fake";
    options.threads = 1;
    options.delay_max_s = 0;
    options.share = std::move(share);
    auto engine = start_one_shot_engine(std::make_unique<FakeOneShotModel>(std::move(fake)), options);
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    engine_ = std::move(engine).value();
    ready_ = true;
  }
  // So many inputs at once, their answers by place.
  std::vector<OneShotAnswer> answers_of(int count, int failing = -1) {
    std::vector<OneShotAnswer> answers(static_cast<size_t>(count));
    std::vector<OneShotRequest> requests;
    std::vector<OneShotDone> done;
    std::promise<void> all;
    std::atomic<int> left = count;
    for (int i = 0; i < count; ++i) {
      requests.push_back(text({i == failing ? kFails : i % 90, 1, 2, 3}));
      done.push_back([&, i](OneShotAnswer answer) {
        answers[static_cast<size_t>(i)] = std::move(answer);
        ++ended_;
        if (--left == 0) all.set_value();
      });
    }
    OneShotId first = 0;
    EXPECT_FALSE(engine_->submit(std::move(requests), std::move(done), first));
    EXPECT_EQ(all.get_future().wait_for(10s), std::future_status::ready);
    return answers;
  }
  // Batches that began before the answers of the one in front of them.
  int begun_early() const {
    int early = 0;
    for (size_t i = 1; i < answered_.size(); ++i) early += answered_[i] < 4 * static_cast<int>(i);
    return early;
  }

  static constexpr int32_t kFails = 99;
  std::atomic<bool> ready_ = false;
  std::atomic<int> ended_ = 0;
  std::vector<int> answered_;
  std::unique_ptr<OneShotEngine> engine_;
};

TEST_F(BatchBehindTest, EachInputGetsItsAnswer) {
  start();
  const auto answers = answers_of(60);
  for (int i = 0; i < 60; ++i) {
    ASSERT_EQ(answers[size_t(i)].outcome, Outcome::kDone) << i;
    EXPECT_EQ(answers[size_t(i)].values, (std::vector<float>{float(i), float(i + 6)})) << i;
    EXPECT_GE(answers[size_t(i)].queue_s, 0);
  }
  EXPECT_GE(begun_early(), 10);
}

TEST_F(BatchBehindTest, AFailedBatchTakesNoOtherWithIt) {
  start();
  const auto answers = answers_of(32, 13);
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(answers[size_t(i)].outcome, i / 4 == 13 / 4 ? Outcome::kFailed : Outcome::kDone) << i;
}

TEST_F(BatchBehindTest, StoppingEndsWhatWaits) {
  start();
  Sent sent = send(*engine_, std::vector<OneShotRequest>(60, text({1, 1, 2, 3})));
  std::this_thread::sleep_for(20ms);
  engine_.reset();
  for (auto& answer : sent.answers) {
    const Outcome outcome = get(answer).outcome;
    EXPECT_TRUE(outcome == Outcome::kDone || outcome == Outcome::kCancelled);
  }
}

TEST_F(BatchBehindTest, ASharedDeviceIsGivenBack) {
  auto share = std::make_shared<DeviceShare>();
  const DeviceShare::Member other = share->join(1);
  start(share);
  std::thread neighbour([&] {
    std::this_thread::sleep_for(10ms);
    const auto asked = std::chrono::steady_clock::now();
    share->acquire(other);
    EXPECT_LT(std::chrono::steady_clock::now() - asked, 5s);
    EXPECT_LT(ended_, 400);
    share->release(other, 0.001, false);
  });
  answers_of(400);
  neighbour.join();
}

}  // namespace
}  // namespace spillway::engine
