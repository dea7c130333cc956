#include <fmt/format.h>

#include "apps/doctor/finding.h"

namespace spillway::apps {
namespace {

struct Style {
  const char* mark;
  const char* colour;
};

Style style_of(Finding::Level level) {
  switch (level) {
    case Finding::Level::kGood:
      return {"ok  ", "\033[32m"};
    case Finding::Level::kWarning:
      return {"warn", "\033[33m"};
    case Finding::Level::kBad:
      return {"BAD ", "\033[31m"};
  }
  return {"", ""};
}

}  // namespace

std::string render(const Findings& findings, bool colour) {
  std::string out;
  for (const auto& finding : findings) {
    const Style style = style_of(finding.level);
    out += fmt::format("{}{}{}  {:<11} {}\n", colour ? style.colour : "", style.mark, colour ? "\033[0m" : "",
                       finding.subject, finding.what);
    if (!finding.mend.empty()) out += fmt::format("                  mend: {}\n", finding.mend);
  }
  return out;
}

}  // namespace spillway::apps
