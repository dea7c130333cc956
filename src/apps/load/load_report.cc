#include <fmt/format.h>

#include <boost/json.hpp>

#include "apps/load/load_generator.h"

namespace spillway::apps {
namespace {

namespace json = boost::json;

std::string milliseconds_row(const char* name, const Percentiles& of) {
  if (of.count == 0) return "";
  return fmt::format("  {:<22}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10}\n", name, of.mean * 1e3, of.p50 * 1e3,
                     of.p90 * 1e3, of.p99 * 1e3, of.max * 1e3, of.count);
}

json::object to_json(const Percentiles& of) {
  return {{"count", of.count}, {"mean_s", of.mean}, {"p50_s", of.p50},
          {"p90_s", of.p90},   {"p99_s", of.p99},   {"max_s", of.max}};
}

double share(int64_t part, int64_t whole) { return whole > 0 ? 100.0 * double(part) / double(whole) : 0.0; }

std::string arrivals_text(const LoadReport& report, const LoadOptions& options) {
  if (options.clients > 0) return fmt::format("{} clients", options.clients);
  if (!options.trace.empty()) return fmt::format("a trace of {} requests", options.trace.size());
  return fmt::format("Poisson, {:.4g}/s wanted, {:.4g}/s offered", options.rate_per_s, report.offered_per_s);
}

}  // namespace

std::string render_text(const LoadReport& report, const LoadOptions& options) {
  std::string out = fmt::format("{}: {}, {:.1f} s\n", options.url, arrivals_text(report, options), report.elapsed_s);
  out += fmt::format("  sent {}   completed {}   refused {}   failed {}\n", report.sent, report.completed,
                     report.refused, report.failed);
  out += fmt::format("  goodput {:.2f}/s ({:.1f}% of sent; first token within {:g} s, mean gap within {:g} s)\n",
                     report.goodput_per_s, share(report.good, report.sent), options.ttft_objective_s,
                     options.itl_objective_s);
  out += fmt::format("  completed {:.2f}/s   {:.1f} tokens/s\n", report.completed_per_s, report.tokens_per_s);
  out += fmt::format("  {:<22}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean", "p50", "p90", "p99",
                     "max", "count");
  out += milliseconds_row("first token", report.ttft);
  out += milliseconds_row("between tokens", report.itl);
  out += milliseconds_row("whole answer", report.total);
  out += milliseconds_row("refusal", report.refusal);
  out += milliseconds_row("generator's delay", report.lateness);
  if (report.refused > 0) {
    out += fmt::format("  Retry-After {:g} to {:g} s, missing {} times\n", report.retry_after_min_s,
                       report.retry_after_max_s, report.refused_bare);
  }
  if (report.not_sent > 0) {
    out += fmt::format("  not sent {}: {} requests were under way already\n", report.not_sent, options.in_flight_max);
  }
  for (const auto& [error, count] : report.errors) out += fmt::format("  {} x {}\n", count, error);
  return out;
}

std::string render_json(const LoadReport& report, const LoadOptions& options) {
  json::object statuses, errors;
  for (const auto& [status, count] : report.statuses) statuses[std::to_string(status)] = count;
  for (const auto& [error, count] : report.errors) errors[error] = count;
  const json::object out{{"url", options.url},
                         {"rate_per_s", options.rate_per_s},
                         {"clients", options.clients},
                         {"elapsed_s", report.elapsed_s},
                         {"sent", report.sent},
                         {"completed", report.completed},
                         {"good", report.good},
                         {"refused", report.refused},
                         {"refused_without_retry_after", report.refused_bare},
                         {"failed", report.failed},
                         {"not_sent", report.not_sent},
                         {"tokens", report.tokens},
                         {"offered_per_s", report.offered_per_s},
                         {"goodput_per_s", report.goodput_per_s},
                         {"completed_per_s", report.completed_per_s},
                         {"tokens_per_s", report.tokens_per_s},
                         {"ttft_objective_s", options.ttft_objective_s},
                         {"itl_objective_s", options.itl_objective_s},
                         {"ttft", to_json(report.ttft)},
                         {"itl", to_json(report.itl)},
                         {"total", to_json(report.total)},
                         {"refusal", to_json(report.refusal)},
                         {"lateness", to_json(report.lateness)},
                         {"retry_after_min_s", report.retry_after_min_s},
                         {"retry_after_max_s", report.retry_after_max_s},
                         {"statuses", statuses},
                         {"errors", errors}};
  return json::serialize(out);
}

std::string render_progress(const LoadOptions::Progress& progress) {
  return fmt::format(
      "{:.1f} s  sent {}  in flight {}  completed {} ({:.1f}% good)  refused {}  failed {}  {:.0f} tok/s",
      progress.elapsed_s, progress.sent, progress.in_flight, progress.completed,
      share(progress.good, progress.completed), progress.refused, progress.failed,
      progress.elapsed_s > 0 ? double(progress.tokens) / progress.elapsed_s : 0.0);
}

}  // namespace spillway::apps
