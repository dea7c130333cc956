#include "server/served_one_shot.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>

namespace spillway::server {

Result<std::shared_ptr<ServedOneShot>> ServedOneShot::make(ServedOneShotOptions options,
                                                           std::unique_ptr<engine::OneShotEngine> engine) {
  std::shared_ptr<ServedOneShot> served(new ServedOneShot());
  served->options_ = std::move(options);
  served->created_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  served->engine_ = std::move(engine);
  if (served->info().vision) return served;
  const std::string path = served->folder() + "/tokenizer.json";
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected the tokenizer of the model, found no such file");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  auto tokenizer = text::Tokenizer::parse(text);
  if (!tokenizer.ok()) return Error(tokenizer.error()).in(path);
  served->tokenizer_ = std::move(tokenizer).value();
  return served;
}

bool ServedOneShot::answers_to(std::string_view name) const {
  return name == options_.name || std::ranges::find(options_.aliases, name) != options_.aliases.end();
}

}  // namespace spillway::server
