#include "server/console/assets.h"

#include <array>

// The assembler copies the files into the program's read-only data.
#define SW_ASSET(symbol, file)                                                                                  \
  asm(".pushsection .rodata\n.balign 16\n" #symbol ":\n.incbin \"" SPILLWAY_CONSOLE_DIR "/" file "\"\n" #symbol \
      "_end:\n.byte 0\n.popsection\n");                                                                         \
  extern "C" {                                                                                                  \
  extern const char symbol[] __attribute__((visibility("hidden")));                                             \
  extern const char symbol##_end[] __attribute__((visibility("hidden")));                                       \
  }

SW_ASSET(sw_console_index, "index.html")
SW_ASSET(sw_console_style, "console.css")
SW_ASSET(sw_console_app, "app.js")
SW_ASSET(sw_console_dom, "dom.js")
SW_ASSET(sw_console_feed, "feed.js")
SW_ASSET(sw_console_words, "words.js")
SW_ASSET(sw_console_words_zh, "words_zh.js")
SW_ASSET(sw_console_format, "format.js")
SW_ASSET(sw_console_charts, "charts.js")
SW_ASSET(sw_console_overview, "overview.js")
SW_ASSET(sw_console_engine, "engine.js")
SW_ASSET(sw_console_requests, "requests.js")
SW_ASSET(sw_console_fleet, "fleet.js")
SW_ASSET(sw_console_readings, "readings.js")
SW_ASSET(sw_console_outcomes, "outcomes.js")
SW_ASSET(sw_console_playground, "playground.js")
SW_ASSET(sw_console_settings, "settings.js")

namespace spillway::server {
namespace {

std::string_view between(const char* begin, const char* end) { return {begin, static_cast<size_t>(end - begin)}; }

constexpr const char* kHtml = "text/html; charset=utf-8";
constexpr const char* kCss = "text/css; charset=utf-8";
constexpr const char* kScript = "text/javascript; charset=utf-8";

}  // namespace

std::span<const Asset> console_assets() {
  static const std::array kAssets = {
      Asset{"index.html", kHtml, between(sw_console_index, sw_console_index_end)},
      Asset{"console.css", kCss, between(sw_console_style, sw_console_style_end)},
      Asset{"app.js", kScript, between(sw_console_app, sw_console_app_end)},
      Asset{"dom.js", kScript, between(sw_console_dom, sw_console_dom_end)},
      Asset{"feed.js", kScript, between(sw_console_feed, sw_console_feed_end)},
      Asset{"words.js", kScript, between(sw_console_words, sw_console_words_end)},
      Asset{"words_zh.js", kScript, between(sw_console_words_zh, sw_console_words_zh_end)},
      Asset{"format.js", kScript, between(sw_console_format, sw_console_format_end)},
      Asset{"charts.js", kScript, between(sw_console_charts, sw_console_charts_end)},
      Asset{"overview.js", kScript, between(sw_console_overview, sw_console_overview_end)},
      Asset{"engine.js", kScript, between(sw_console_engine, sw_console_engine_end)},
      Asset{"requests.js", kScript, between(sw_console_requests, sw_console_requests_end)},
      Asset{"fleet.js", kScript, between(sw_console_fleet, sw_console_fleet_end)},
      Asset{"readings.js", kScript, between(sw_console_readings, sw_console_readings_end)},
      Asset{"outcomes.js", kScript, between(sw_console_outcomes, sw_console_outcomes_end)},
      Asset{"playground.js", kScript, between(sw_console_playground, sw_console_playground_end)},
      Asset{"settings.js", kScript, between(sw_console_settings, sw_console_settings_end)},
  };
  return kAssets;
}

const Asset* find_asset(std::string_view name) {
  for (const Asset& asset : console_assets()) {
    if (asset.name == name) return &asset;
  }
  return nullptr;
}

}  // namespace spillway::server
