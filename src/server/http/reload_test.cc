// Options that change while the server runs: keys and the bounds of admission, all or nothing.
#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

class ReloadTest : public ServerTest {
 protected:
  int status_with(const std::string& key) {
    net::Headers headers;
    headers.add("Authorization", "Bearer " + key);
    return post("/v1/chat/completions", kChat + "}", std::move(headers)).status;
  }
};

TEST_F(ReloadTest, KeysOfTheFileAreReadAgain) {
  const std::string file = ::testing::TempDir() + "reload_test_keys";
  std::ofstream(file) << "first-key\n";
  ServerOptions options;
  options.api_keys_file = file;
  start(options);
  EXPECT_EQ(status_with("first-key"), 200);
  EXPECT_EQ(status_with("second-key"), 401);
  std::ofstream(file) << "second-key\n";
  ASSERT_TRUE(server_->reload({}, file, {}).ok());
  EXPECT_EQ(status_with("first-key"), 401);
  EXPECT_EQ(status_with("second-key"), 200);
  std::remove(file.c_str());
  EXPECT_FALSE(server_->reload({}, file, {}).ok());
  EXPECT_EQ(status_with("second-key"), 200) << "a file that cannot be read changes nothing";
}

TEST_F(ReloadTest, BoundsOfTheQueueReachTheServerAndTheEngine) {
  start();
  model_.engine->reported.waiting = 5;
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}").status, 200);
  AdmissionBounds bounds;
  bounds.queue_requests_max = 5;
  bounds.queue_wait_max_s = 7;
  ASSERT_TRUE(server_->reload({}, "", bounds).ok());
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}").status, 429);
  EXPECT_EQ(model_.engine->bounds.requests_max, 5);
  EXPECT_EQ(model_.engine->bounds.wait_max_s, 7);
  EXPECT_FALSE(server_->reload({}, "/no/such/file", {}).ok());
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}").status, 429) << "a refused reload changes nothing";
}

}  // namespace
}  // namespace spillway::server
