#include "apps/top/screen.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace spillway::apps {
namespace {

namespace json = boost::json;

constexpr std::string_view kBold = "\033[1m", kDim = "\033[2m", kRed = "\033[31m", kYellow = "\033[33m",
                           kGreen = "\033[32m", kReset = "\033[0m";

const json::value* at(const json::object& object, std::string_view key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &found->value();
}

double number(const json::object& object, std::string_view key) {
  const json::value* value = at(object, key);
  if (value == nullptr || !value->is_number()) return 0;
  return value->to_number<double>();
}

std::string text(const json::object& object, std::string_view key) {
  const json::value* value = at(object, key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

const json::object& object_at(const json::object& object, std::string_view key) {
  static const json::object kNone;
  const json::value* value = at(object, key);
  return value != nullptr && value->is_object() ? value->get_object() : kNone;
}

const json::array& array_at(const json::object& object, std::string_view key) {
  static const json::array kNone;
  const json::value* value = at(object, key);
  return value != nullptr && value->is_array() ? value->get_array() : kNone;
}

std::string duration(double s) {
  if (s <= 0) return "0";
  if (s < 1) return fmt::format("{:.0f} ms", s * 1e3);
  if (s < 120) return fmt::format("{:.1f} s", s);
  if (s < 7200) return fmt::format("{:.0f} min", s / 60);
  return fmt::format("{:.1f} h", s / 3600);
}

std::string bar(double share, int width) {
  const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * width + 0.5);
  std::string out = "[";
  for (int i = 0; i < width; ++i) out += i < full ? '|' : ' ';
  return out + "]";
}

// Lines are cut to the width before colour goes around them, so that escape sequences do not count.
class Lines {
 public:
  Lines(ScreenSize size, bool colour) : size_(size), colour_(colour) {}

  void add(std::string line, std::string_view tone = {}) {
    if (static_cast<int>(lines_.size()) >= size_.rows) return;
    std::string clean;
    int columns = 0;
    for (size_t i = 0; i < line.size() && columns < size_.columns; ++i) {
      const auto c = static_cast<unsigned char>(line[i]);
      if (c < 0x20 || c == 0x7f) continue;  // what a server says moves no cursor
      clean += line[i];
      const bool ends = i + 1 >= line.size() || (static_cast<unsigned char>(line[i + 1]) & 0xc0) != 0x80;
      columns += ends;
    }
    if (colour_ && !tone.empty()) clean = std::string(tone) + clean + std::string(kReset);
    lines_.push_back(std::move(clean));
  }
  int left() const { return size_.rows - static_cast<int>(lines_.size()); }
  std::string join() const {
    std::string out;
    for (const std::string& line : lines_) out += line + "\n";
    return out;
  }

 private:
  const ScreenSize size_;
  const bool colour_;
  std::vector<std::string> lines_;
};

std::string sentence_of(const std::string& resource) {
  static const std::vector<std::pair<std::string_view, std::string_view>> kSentences = {
      {"idle", "nothing to do"},
      {"loading", "the model is loading"},
      {"draining", "the server is shutting down"},
      {"device_failed", "a GPU in use reported an error of its own (XID)"},
      {"stalled", "the engine makes no progress"},
      {"upstreams", "no upstream is healthy"},
      {"upstream_time", "upstreams take the time"},
      {"slots", "all sequence slots are taken (engine.sequences_max)"},
      {"kv_pages", "the KV cache is full (engine.kv_cache)"},
      {"host_cpu", "other programs use the processor"},
      {"memory_bandwidth", "memory bandwidth: weights and cache are read each step"},
      {"compute", "arithmetic: mostly prompts"},
      {"overhead", "overhead between operations"},
      {"clients", "parsing, templates and slow readers"},
  };
  for (const auto& [name, sentence] : kSentences) {
    if (name == resource) return std::string(sentence);
  }
  return resource;
}

void add_verdict(const json::object& verdict, Lines& lines) {
  if (verdict.empty()) return;
  const std::string severity = text(verdict, "severity");
  const auto tone = severity == "bad" ? kRed : severity == "busy" ? kYellow : kGreen;
  std::string line = "why slow  " + sentence_of(text(verdict, "resource"));
  const double efficiency = number(verdict, "efficiency");
  if (efficiency > 0)
    line += fmt::format("; a step is {} ({:.0f}% of its floor)", duration(number(verdict, "step_s")), efficiency * 100);
  lines.add(line, tone);
  const json::object& shares = object_at(verdict, "shares");
  if (number(shares, "requests") == 0) return;
  lines.add(fmt::format("time      queue {:.0f}%  prefill {:.0f}%  decode {:.0f}%  upstream {:.0f}%  other {:.0f}%",
                        number(shares, "queue") * 100, number(shares, "prefill") * 100, number(shares, "decode") * 100,
                        number(shares, "upstream") * 100, number(shares, "other") * 100));
}

void add_stream(const json::object& stream, Lines& lines) {
  const std::string phase = text(stream, "phase");
  std::string name = text(stream, "name");
  if (name.empty()) name = fmt::format("#{:.0f}", number(stream, "id"));
  std::string line = fmt::format("  {:<18.18} {:<8} {:>6.0f} in  {:>6.0f} cached  {:>6.0f} of {:<6.0f} out  {:>8}",
                                 name, phase, number(stream, "prompt"), number(stream, "cached"),
                                 number(stream, "generated"), number(stream, "max"), duration(number(stream, "age_s")));
  if (phase == "waiting") line += "  begins in " + duration(number(stream, "wait_s"));
  lines.add(line, phase == "waiting" ? kDim : std::string_view());
}

void add_model(const json::object& model, Lines& lines, int streams_max) {
  const json::object& engine = object_at(model, "engine");
  lines.add("");
  lines.add(fmt::format("{}: {:.0f} running, {:.0f} waiting ({:.0f} tokens, {} predicted)", text(model, "name"),
                        number(model, "running"), number(model, "waiting"), number(model, "waiting_tokens"),
                        duration(number(model, "predicted_wait_s"))),
            kBold);
  const double total = number(model, "pages_total"), free = number(model, "pages_free"),
               cached = number(model, "pages_cached");
  const double used = total > 0 ? (total - free - cached) / total : 0;
  lines.add(fmt::format("  pages {} {:>3.0f}% used, {:.0f}% cached, of {:.0f}", bar(used, 24), used * 100,
                        total > 0 ? cached / total * 100 : 0, total));
  if (engine.empty()) return;
  const json::object& step = object_at(engine, "step");
  const double budget = number(engine, "batch_tokens_max");
  const double rows = number(step, "decode_rows") + number(step, "prefill_tokens");
  lines.add(fmt::format("  batch {} {:.0f} decode + {:.0f} prefill of {:.0f} rows, {}",
                        bar(budget > 0 ? rows / budget : 0, 24), number(step, "decode_rows"),
                        number(step, "prefill_tokens"), budget, duration(number(step, "seconds"))));
  int shown = 0;
  for (const json::value& stream : array_at(engine, "streams")) {
    if (!stream.is_object() || shown++ >= streams_max) break;
    add_stream(stream.get_object(), lines);
  }
}

void add_upstreams(const json::array& upstreams, Lines& lines) {
  if (upstreams.empty()) return;
  lines.add("");
  lines.add("upstreams", kBold);
  for (const json::value& value : upstreams) {
    if (!value.is_object()) continue;
    const json::object& upstream = value.get_object();
    const std::string health = text(upstream, "health");
    const auto tone = health == "down" ? kRed : health == "probing" ? kYellow : std::string_view();
    std::string line =
        fmt::format("  {:<20.20} {:<8} {:>4.0f}/{:<4.0f} first token {:>8} p50 {:>8} p99", text(upstream, "name"),
                    health, number(upstream, "in_flight"), number(upstream, "concurrency_max"),
                    duration(number(upstream, "first_token_p50_s")), duration(number(upstream, "first_token_p99_s")));
    if (health == "down") line += "  again in " + duration(number(upstream, "opens_in_s"));
    lines.add(line, tone);
  }
}

// Conversion of the last hour by arm; for the other measures there is the console.
void add_outcomes(const json::array& readings, Lines& lines) {
  constexpr size_t kArmsMax = 6;
  std::map<std::string, std::map<std::string, double>> arms;
  for (const json::value& value : readings) {
    if (!value.is_object() || text(value.get_object(), "name") != "spillway_business_conversion_ratio") continue;
    const json::object& labels = object_at(value.get_object(), "labels");
    if (text(labels, "window") != "1h") continue;
    arms[text(labels, "arm") + "  " + text(labels, "model")][text(labels, "bound")] =
        number(value.get_object(), "value");
  }
  if (arms.empty()) return;
  lines.add("");
  lines.add("conversion by arm, last hour", kBold);
  size_t shown = 0;
  for (const auto& [name, bounds] : arms) {
    if (++shown > kArmsMax) break;
    const auto percent = [&bounds = bounds](const char* bound) {
      const auto found = bounds.find(bound);
      return found == bounds.end() ? std::string("-") : fmt::format("{:.1f}%", found->second * 100);
    };
    lines.add(
        fmt::format("  {:<36.36} {:>7}  95%: {} to {}", name, percent("estimate"), percent("low"), percent("high")));
  }
}

}  // namespace

std::string draw_screen(const json::object& frame, std::string_view url, ScreenSize size, bool colour) {
  Lines lines(size, colour);
  const json::object& requests = object_at(frame, "requests");
  const json::object& tokens = object_at(frame, "tokens");
  const json::object& host = object_at(frame, "host");
  lines.add(fmt::format("spillway {}  {}  up {}", url, text(frame, "status"), duration(number(frame, "uptime_s"))),
            kBold);
  lines.add(fmt::format("requests  {:.1f}/s, {:.0f} in flight, {:.1f} errors/s, {:.1f} refused/s",
                        number(requests, "per_s"), number(requests, "in_flight"), number(requests, "errors_per_s"),
                        number(requests, "refusals_per_s")));
  lines.add(fmt::format("latency   p50 {}  p95 {}  p99 {}   first token p50 {}  p99 {}",
                        duration(number(requests, "p50_s")), duration(number(requests, "p95_s")),
                        duration(number(requests, "p99_s")), duration(number(requests, "first_p50_s")),
                        duration(number(requests, "first_p99_s"))));
  lines.add(fmt::format("tokens    {:.0f}/s out, {:.0f}/s in, {:.0f}% of prompts from the cache",
                        number(tokens, "generated_per_s"), number(tokens, "prompt_per_s"),
                        number(tokens, "cache_hits") * 100));
  lines.add(fmt::format("host      {} {:.0f}% busy, {:.0f}% this server, {:.0f} processors",
                        bar(number(host, "cpu_busy"), 24), number(host, "cpu_busy") * 100,
                        number(host, "cpu_own") * 100, number(host, "processors")));
  add_verdict(object_at(frame, "verdict"), lines);
  add_upstreams(array_at(frame, "upstreams"), lines);
  add_outcomes(array_at(frame, "business"), lines);
  const json::array& models = array_at(frame, "models");
  for (const json::value& model : models) {
    if (!model.is_object()) continue;
    const int room = std::max(0, (lines.left() - 4) / std::max(1, static_cast<int>(models.size())));
    add_model(model.get_object(), lines, room);
  }
  return lines.join();
}

}  // namespace spillway::apps
