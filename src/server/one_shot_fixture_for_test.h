// A server with one of each kind of one-shot model, on fakes, beside the language model of ServerTest.
#pragma once

#include "server/fake_one_shot_for_test.h"
#include "server/model_catalogue.h"
#include "server/server_fixture_for_test.h"

namespace spillway::server {

struct TestOneShot {
  OneShotPtr served;
  FakeOneShot* engine = nullptr;
};

inline TestOneShot make_one_shot(std::string name, models::OneShotInfo info, std::vector<std::string> aliases = {}) {
  auto engine = std::make_unique<FakeOneShot>(std::move(info));
  TestOneShot model;
  model.engine = engine.get();
  ServedOneShotOptions options;
  options.name = std::move(name);
  options.aliases = std::move(aliases);
  options.folder = SPILLWAY_SOURCE_DIR "/tests/golden/tokenizer_bert";
  auto served = ServedOneShot::make(std::move(options), std::move(engine));
  SW_CHECK(served.ok(), served.error().message);
  model.served = std::move(served).value();
  return model;
}

class OneShotTest : public ServerTest {
 protected:
  void start_all(ServerOptions options = {}) {
    start(std::move(options), false);
    server_->serve(std::make_shared<FixedCatalogue>(
        std::vector<LanguagePtr>{model_.served},
        std::vector<OneShotPtr>{encoder_.served, reranker_.served, classifier_.served, vision_.served}));
  }

  TestOneShot encoder_ = make_one_shot("mini", FakeOneShot::encoder_info(), {"text-embedding-3-small"});
  TestOneShot reranker_ = make_one_shot("ranker", FakeOneShot::reranker_info());
  TestOneShot classifier_ = make_one_shot("moods", FakeOneShot::classifier_info());
  TestOneShot vision_ = make_one_shot("eyes", FakeOneShot::vision_info());
};

}  // namespace spillway::server
