// ChatSource: where the answers of `chat` and `eval` come from: a model in this process, or a server's URL.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/common.h"
#include "base/result.h"
#include "server/served_model.h"

namespace spillway::apps {

struct ChatTurn {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct AskOptions {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint64_t> seed;
  std::optional<int> max_tokens;
};

struct Answer {
  std::string reasoning;
  std::string content;
  std::string finish_reason;
  api::Usage usage;
};

// Called with each piece of text as it comes (empty while waiting, a few times a second); false stops the generation.
using OnText = std::function<bool(bool reasoning, std::string_view text)>;

class ChatSource {
 public:
  virtual ~ChatSource() = default;

  // Blocks until the answer ended. Several threads may ask at once.
  virtual Result<Answer> ask(const std::vector<ChatTurn>& turns, const AskOptions& options, const OnText& on_text) = 0;
  virtual std::string name() const = 0;  // of the model
};

std::unique_ptr<ChatSource> local_source(std::shared_ptr<server::ServedModel> model);

struct UrlSourceOptions {
  std::string url;          // "http://host:port", with or without /v1
  std::string model;        // empty: the first that the server lists
  std::string api_key;      // empty: OPENAI_API_KEY, if set
  std::string tls_ca_file;  // empty: the system's authorities
};
Result<std::unique_ptr<ChatSource>> url_source(const UrlSourceOptions& options);

}  // namespace spillway::apps
