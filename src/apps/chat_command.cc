// spillway chat: a conversation in the terminal, with a server or with a model in this process.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>

#include "apps/chat_source.h"
#include "apps/command.h"
#include "apps/local_model.h"
#include "apps/options.h"
#include "apps/progress.h"
#include "apps/signals.h"
#include "apps/system.h"

namespace spillway::apps {
namespace {

struct ChatOptions {
  std::string url;
  std::string api_key;
  std::string tls_ca_file;
  std::string system;
  AskOptions ask;
  bool hide_reasoning = false;
};

enum class Input { kLine, kEnd, kInterrupted };

// One line of standard input, unbuffered so that an interrupt is seen at once.
Input read_line(std::string& line) {
  line.clear();
  for (char c;;) {
    const ssize_t got = read(STDIN_FILENO, &c, 1);
    if (got < 0 && errno == EINTR) return Input::kInterrupted;
    if (got <= 0) return line.empty() ? Input::kEnd : Input::kLine;
    if (c == '\n') return Input::kLine;
    line += c;
  }
}

// Writes the pieces of an answer, the reasoning dimmed on a terminal and between <think> marks elsewhere.
class Printer {
 public:
  Printer(bool terminal, bool hide_reasoning) : terminal_(terminal), hide_(hide_reasoning) {}

  void put(bool reasoning, std::string_view text) {
    if (text.empty() || (reasoning && hide_)) return;
    if (reasoning != in_reasoning_) turn(reasoning);
    if (at_start_ && !reasoning) text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    if (text.empty()) return;
    at_start_ = false;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  void end() {
    if (in_reasoning_) turn(false);
    std::fputs("\n", stdout);
    std::fflush(stdout);
  }

 private:
  void turn(bool reasoning) {
    if (reasoning)
      std::fputs(terminal_ ? "\033[2m" : "<think>\n", stdout);
    else
      std::fputs(terminal_ ? "\033[0m\n" : "\n</think>\n", stdout);
    in_reasoning_ = reasoning;
    at_start_ = true;
  }

  bool terminal_, hide_;
  bool in_reasoning_ = false;
  bool at_start_ = true;  // of the reasoning or the answer
};

class Conversation {
 public:
  Conversation(ChatSource& source, const ChatOptions& options) : source_(source), options_(options) { reset(); }

  // Until the end of the input or /exit; the status for the shell.
  int hold() {
    const bool prompt = is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO);
    if (prompt) std::printf("%s. /reset forgets, /exit leaves, Ctrl-C stops an answer.\n", source_.name().c_str());
    int status = 0;
    for (std::string line;;) {
      if (prompt) std::fputs("\n> ", stdout), std::fflush(stdout);
      const Input input = read_line(line);
      if (input == Input::kInterrupted) {
        if (!prompt) return kInterruptedStatus;
        std::fputs("\n(/exit leaves)", stdout);
        continue;
      }
      if (input == Input::kEnd || line == "/exit" || line == "/quit") break;
      if (line == "/reset") {
        reset();
        continue;
      }
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const auto answered = say(line);
      if (!answered.ok()) status = fail(answered.error());
      if (!answered.ok() && !prompt) return status;
    }
    if (prompt) std::fputs("\n", stdout);
    return prompt ? 0 : status;
  }

 private:
  static constexpr int kInterruptedStatus = 130;

  void reset() {
    turns_.clear();
    if (!options_.system.empty()) turns_.push_back({"system", options_.system});
  }

  Status say(const std::string& line) {
    turns_.push_back({"user", line});
    Printer printer(colours(STDOUT_FILENO), options_.hide_reasoning);
    const int before = interrupts();
    auto answer = source_.ask(turns_, options_.ask, [&](bool reasoning, std::string_view text) {
      printer.put(reasoning, text);
      return interrupts() == before;
    });
    printer.end();
    if (!answer.ok()) {
      turns_.pop_back();  // so that the conversation can go on
      return std::move(answer).error();
    }
    if (answer->finish_reason == "length") std::fputs("(cut off: the limit of tokens was reached)\n", stderr);
    turns_.push_back({"assistant", std::move(answer->content)});
    return {};
  }

  ChatSource& source_;
  const ChatOptions& options_;
  std::vector<ChatTurn> turns_;
};

Result<int> chat(const ChatOptions& options, const config::Config& config) {
  std::unique_ptr<ChatSource> source;
  if (options.url.empty() && config.is_explicit(config::Key<config::Type::kString>("model.path"))) {
    SW_TRY(check_model_options(config));
    Progress progress("loading", Progress::Unit::kBytes);
    SW_ASSIGN(LocalModel model,
              load_local_model(config, [&](int64_t done, int64_t total) { progress.update(done, total); }));
    source = local_source(model.served);
  } else {
    const std::string url = options.url.empty() ? "http://127.0.0.1:8000" : options.url;
    auto opened = url_source({url, config.text("model.name"), options.api_key, options.tls_ca_file});
    if (!opened.ok()) {
      if (!options.url.empty() || opened.error().code != ErrorCode::kUnavailable) return std::move(opened).error();
      return Error{ErrorCode::kUnavailable,
                   opened.error().message +
                       "\nStart `spillway serve` first, name a server with --url, or talk to a model "
                       "in this process: spillway chat --model builtin"};
    }
    source = std::move(opened).value();
  }
  catch_interrupts();
  return Conversation(*source, options).hold();
}

}  // namespace

void add_chat(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("chat", "Talk to a server, or with --model to a model in this process");
  const auto options = std::make_shared<ChatOptions>();
  command->add_option("--url", options->url, "Server [http://127.0.0.1:8000]");
  command->add_option("--api-key", options->api_key, "Key for the server env OPENAI_API_KEY");
  command->add_option("--tls-ca", options->tls_ca_file,
                      "PEM file of the authority that signed the server's certificate");
  command->add_option("--system", options->system, "System message");
  command->add_option("--temperature", options->ask.temperature, "Default: as the model recommends");
  command->add_option("--top-p", options->ask.top_p, "Default: as the model recommends");
  command->add_option("--seed", options->ask.seed, "For the same answer again");
  command->add_option("--max-tokens", options->ask.max_tokens, "Longest answer, reasoning included");
  command->add_flag("--hide-reasoning", options->hide_reasoning, "Print the answers alone");
  const auto flags = ConfigFlags::add(*command, {"model", "hardware", "engine", "log"});
  command->callback([options, flags, &status] {
    status = exit_status([&]() -> Result<int> {
      flags->prefer("log.level", "warn");
      SW_ASSIGN(const auto config, flags->resolve());
      return chat(*options, config);
    }());
  });
}

}  // namespace spillway::apps
