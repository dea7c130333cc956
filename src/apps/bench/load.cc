// bench load: the load generator's front: files, the live line, the report.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "apps/bench/bench.h"
#include "apps/signals.h"
#include "apps/system.h"

namespace spillway::apps {
namespace {

Result<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected a readable file, found none");
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// Redrawn in place on a terminal; every few seconds otherwise.
class LiveLine {
 public:
  bool show(const LoadOptions::Progress& progress) {
    constexpr double kLogInterval = 5;
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%s", render_progress(progress).c_str());
    } else if (progress.elapsed_s >= next_s_) {
      std::fprintf(stderr, "%s\n", render_progress(progress).c_str());
      next_s_ = progress.elapsed_s + kLogInterval;
    }
    return stop_signals() == 0;
  }
  void end() const {
    if (terminal_) std::fputs("\r\033[K", stderr);
  }

 private:
  const bool terminal_ = is_terminal(STDERR_FILENO);
  double next_s_ = 5;
};

}  // namespace

Status bench_load(LoadBench bench) {
  LoadOptions& load = bench.load;
  if (load.url.find("/v1") == std::string::npos) load.url += load.url.ends_with('/') ? "v1" : "/v1";
  if (!bench.trace_file.empty()) {
    SW_ASSIGN(const std::string text, read_file(bench.trace_file));
    auto trace = parse_trace(text);
    if (!trace.ok()) return std::move(trace).error().in(bench.trace_file);
    load.trace = std::move(trace).value();
  }
  if (!bench.prompts_file.empty()) {
    SW_ASSIGN(const std::string text, read_file(bench.prompts_file));
    load.prompts = lines_of(text);
  }
  if (load.trace.empty() && load.rate_per_s <= 0 && load.clients <= 0) load.clients = 1;
  load.duration = from_seconds(bench.duration_s);
  load.ttft_objective_s = bench.ttft_objective_s;
  load.itl_objective_s = bench.itl_objective_s;
  catch_stop_signals();
  LiveLine line;
  load.on_progress = [&](const LoadOptions::Progress& progress) { return line.show(progress); };
  const auto report = run_load(load);
  line.end();
  if (!report.ok()) return report.error();
  std::printf("%s\n", (bench.as_json ? render_json(*report, load) : render_text(*report, load)).c_str());
  if (report->sent > 0 && report->completed == 0) {
    return Error{ErrorCode::kUnavailable, fmt::format("none of the {} requests was answered", report->sent)};
  }
  return {};
}

}  // namespace spillway::apps
