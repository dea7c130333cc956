// spillway eval: exact-match accuracy over a question file, in process or against a server.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <mutex>
#include <thread>

#include "apps/builtin_model.h"
#include "apps/chat_source.h"
#include "apps/command.h"
#include "apps/eval/score.h"
#include "apps/local_model.h"
#include "apps/options.h"
#include "apps/progress.h"
#include "apps/signals.h"

namespace spillway::apps {
namespace {

struct EvalOptions {
  std::string file;  // empty: the builtin model's own
  std::string url;
  std::string api_key;
  std::string tls_ca_file;
  int concurrency = 64;
  int limit = 0;
  int max_tokens = 1024;
  double temperature = 0;
  uint64_t seed = 1;
  double min_accuracy = 0;  // in percent
  int show_wrong = 0;
  bool as_json = false;
};

struct Outcome {
  Score score;
  api::Usage usage;
  std::vector<std::string> wrong;
  double seconds = 0;
};

Result<std::vector<Question>> read_questions(const EvalOptions& options) {
  if (options.file.empty()) return parse_questions(builtin_evaluation());
  std::ifstream in(options.file, std::ios::binary);
  if (!in) return not_found(options.file + ": expected a readable question file, found none");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  auto questions = parse_questions(text);
  if (!questions.ok()) return std::move(questions).error().in(options.file);
  return questions;
}

// Asks all questions, `concurrency` at a time. The first failure ends it.
class Run {
 public:
  Run(ChatSource& source, const std::vector<Question>& questions, const EvalOptions& options)
      : source_(source), questions_(questions), options_(options), progress_("evaluating", Progress::Unit::kCount) {}

  Result<Outcome> all() {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    const size_t count = std::min(size_t(options_.concurrency), questions_.size());
    for (size_t i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    for (auto& thread : threads) thread.join();
    progress_.finish();
    if (failure_) return *failure_;
    if (stop_signals() > 0) return Error{ErrorCode::kCancelled, "stopped by a signal"};
    outcome_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(outcome_);
  }

 private:
  void work() {
    const AskOptions ask{float(options_.temperature), std::nullopt, options_.seed, options_.max_tokens};
    for (size_t i; !stopped_ && (i = next_++) < questions_.size();) {
      const Question& question = questions_[i];
      auto answer = source_.ask({{"user", question.prompt}}, ask,
                                [this](bool, std::string_view) { return !stopped_ && stop_signals() == 0; });
      std::lock_guard lock(mutex_);
      if (!answer.ok() || stop_signals() > 0) {
        if (!answer.ok() && !failure_) failure_ = answer.error();
        stopped_ = true;
        return;
      }
      add(question, *answer);
    }
  }

  void add(const Question& question, const Answer& answer) {
    const std::string_view given = final_answer(answer.content);
    const bool right = given == final_answer(question.answer);
    outcome_.score.add(question.task, right, answer.usage.completion_tokens);
    outcome_.usage.prompt_tokens += answer.usage.prompt_tokens;
    outcome_.usage.completion_tokens += answer.usage.completion_tokens;
    outcome_.usage.draft_tokens += answer.usage.draft_tokens;
    outcome_.usage.accepted_tokens += answer.usage.accepted_tokens;
    if (!right && int(outcome_.wrong.size()) < options_.show_wrong) {
      outcome_.wrong.push_back(
          fmt::format("{}: {}\n  expected {}\n  found    {}", question.task, question.prompt, question.answer, given));
    }
    progress_.update(outcome_.score.total.asked, int64_t(questions_.size()));
  }

  ChatSource& source_;
  const std::vector<Question>& questions_;
  const EvalOptions& options_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;  // over what follows
  Progress progress_;
  Outcome outcome_;
  std::optional<Error> failure_;
};

void print(const Outcome& outcome, const std::string& model, const std::string& precision) {
  for (const auto& wrong : outcome.wrong) std::printf("%s\n", wrong.c_str());
  std::fputs(render(outcome.score).c_str(), stdout);
  std::printf("\n%s%s: %d of %d right in %.1f s, %.0f tokens/s generated", model.c_str(), precision.c_str(),
              outcome.score.total.right, outcome.score.total.asked, outcome.seconds,
              double(outcome.usage.completion_tokens) / outcome.seconds);
  if (outcome.usage.draft_tokens > 0) {
    std::printf(", %.1f%% of %d drafts accepted", 100.0 * outcome.usage.accepted_tokens / outcome.usage.draft_tokens,
                outcome.usage.draft_tokens);
  }
  std::printf("\n");
}

void print_json(const Outcome& outcome, const std::string& model) {
  boost::json::object tasks;
  for (const auto& [task, tally] : outcome.score.tasks) tasks[task] = {{"asked", tally.asked}, {"right", tally.right}};
  const boost::json::object all{{"model", model},
                                {"asked", outcome.score.total.asked},
                                {"right", outcome.score.total.right},
                                {"accuracy", outcome.score.total.accuracy()},
                                {"seconds", outcome.seconds},
                                {"completion_tokens", outcome.usage.completion_tokens},
                                {"draft_tokens", outcome.usage.draft_tokens},
                                {"accepted_tokens", outcome.usage.accepted_tokens},
                                {"tasks", tasks}};
  std::printf("%s\n", boost::json::serialize(all).c_str());
}

Result<int> evaluate(const EvalOptions& options, const config::Config& config) {
  if (options.file.empty() && options.url.empty() && config.text("model.path") != "builtin") {
    return invalid("expected a question file (eval --model DIR QUESTIONS.json); only the builtin model brings its own");
  }
  SW_ASSIGN(std::vector<Question> questions, read_questions(options));
  if (options.limit > 0 && size_t(options.limit) < questions.size()) questions.resize(size_t(options.limit));
  catch_stop_signals();
  std::unique_ptr<ChatSource> source;
  std::string precision;
  if (!options.url.empty()) {
    SW_ASSIGN(source, url_source({options.url, config.text("model.name"), options.api_key, options.tls_ca_file}));
  } else {
    SW_TRY(check_model_options(config));
    Progress progress("loading", Progress::Unit::kBytes);
    SW_ASSIGN(LocalModel model,
              load_local_model(config, [&](int64_t done, int64_t total) { progress.update(done, total); }));
    source = local_source(model.served);
    precision = " (" + model.info.precision + ")";
  }
  Run run(*source, questions, options);
  SW_ASSIGN(const Outcome outcome, run.all());
  options.as_json ? print_json(outcome, source->name()) : print(outcome, source->name(), precision);
  const bool enough = outcome.score.total.accuracy() * 100 >= options.min_accuracy;
  if (!enough) std::fprintf(stderr, "spillway: accuracy is below --min-accuracy %g\n", options.min_accuracy);
  return enough ? 0 : kFailed;
}

}  // namespace

void add_eval(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("eval", "Exact-match accuracy over a question file");
  const auto options = std::make_shared<EvalOptions>();
  command->add_option("questions", options->file,
                      "JSON: [{\"task\", \"prompt\", \"answer\"}, ...]; the builtin model brings its own");
  command->add_option("--url", options->url, "Ask this server instead of a model in process");
  command->add_option("--api-key", options->api_key, "Key for the server env OPENAI_API_KEY");
  command->add_option("--tls-ca", options->tls_ca_file,
                      "PEM file of the authority that signed the server's certificate");
  command->add_option("--concurrency", options->concurrency, "Questions asked at once [64]")
      ->check(CLI::Range(1, 4096));
  command->add_option("--limit", options->limit, "Ask the first so many questions only")->check(CLI::Range(1, 1 << 30));
  command->add_option("--max-tokens", options->max_tokens, "Longest answer, reasoning included [1024]")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--temperature", options->temperature, "0: greedy [0]")->check(CLI::Range(0.0, 2.0));
  command->add_option("--seed", options->seed, "Of the sampling [1]");
  command->add_option("--min-accuracy", options->min_accuracy, "In percent; below it the exit status is 1")
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--show-wrong", options->show_wrong, "Print up to so many wrong answers")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--json", options->as_json, "Print JSON");
  const auto flags = ConfigFlags::add(*command, {"model", "hardware", "engine", "log"});
  command->callback([options, flags, &status] {
    status = exit_status([&]() -> Result<int> {
      flags->prefer("log.level", "warn");
      SW_ASSIGN(const auto config, flags->resolve());
      return evaluate(*options, config);
    }());
  });
}

}  // namespace spillway::apps
