// spillway top: a server's live state in the terminal. spillway trace: what its threads do for some seconds, in a file.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json/parse.hpp>
#include <cstdio>
#include <cstring>

#include "apps/command.h"
#include "apps/signals.h"
#include "apps/system.h"
#include "apps/top/remote_console.h"
#include "apps/top/screen.h"
#include "net/sse.h"

namespace spillway::apps {
namespace {

constexpr Duration kSilenceMax = std::chrono::seconds(20);

ScreenSize terminal_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return {size.ws_col, std::max(5, size.ws_row - 1)};
  return {120, 60};
}

// Draws over what was there, without a flash.
void put(const std::string& screen, bool terminal) {
  std::string out = terminal ? "\033[H" : "";
  for (size_t begin = 0; begin < screen.size();) {
    const size_t end = screen.find('\n', begin);
    out += screen.substr(begin, end - begin);
    out += terminal ? "\033[K\r\n" : "\n";
    begin = end + 1;
  }
  if (terminal) out += "\033[J";
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

// The alternate screen of a terminal, for as long as it lives.
class AlternateScreen {
 public:
  explicit AlternateScreen(bool on) : on_(on) {
    if (on_) std::fputs("\033[?1049h\033[?25l\033[2J", stdout);
  }
  ~AlternateScreen() {
    if (on_) std::fputs("\033[?25h\033[?1049l", stdout), std::fflush(stdout);
  }
  AlternateScreen(const AlternateScreen&) = delete;

 private:
  const bool on_;
};

Result<int> top(const RemoteConsole& remote, bool once) {
  const bool terminal = is_terminal(STDOUT_FILENO) && !once;
  catch_interrupts();
  net::SseParser parser;
  std::string problem;
  int frames = 0;
  AlternateScreen alternate(terminal);
  const auto show = [&](const net::SseEvent& event) {
    boost::system::error_code error;
    const boost::json::value frame = boost::json::parse(event.data, error);
    if (error || !frame.is_object()) {
      problem = "expected a JSON object in an event, found: " + event.data.substr(0, 80);
    } else if (once ? frames++ == 0 : frames++ % 2 == 0) {  // five a second are enough for the eye
      put(draw_screen(frame.get_object(), remote.url, terminal_size(), colours(STDOUT_FILENO)), terminal);
    }
  };
  const auto ended = remote.call("GET", "/console/api/events", kSilenceMax, [&](std::string_view piece) {
    const Status fed = parser.feed(piece, show);
    if (!fed.ok()) problem = fed.error().message;
    return problem.empty() && interrupts() == 0 && !(once && frames > 0);
  });
  if (!problem.empty()) return Error{ErrorCode::kCorrupt, remote.url + ": " + problem};
  if (interrupts() > 0 || (once && frames > 0)) return 0;
  if (!ended.ok()) return ended.error();
  return Error{ErrorCode::kUnavailable, remote.url + ": the server ended the stream"};
}

Result<int> trace(const RemoteConsole& remote, double length_s, const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return invalid("--output: cannot write " + path + ": " + std::strerror(errno));
  std::fprintf(stderr, "tracing %s for %g s\n", remote.url.c_str(), length_s);
  size_t bytes = 0;
  bool good = true;
  const auto answer = remote.call("POST", fmt::format("/console/api/trace?seconds={}", length_s),
                                  from_seconds(length_s + 30), [&](std::string_view piece) {
                                    good = good && std::fwrite(piece.data(), 1, piece.size(), file) == piece.size();
                                    bytes += piece.size();
                                    return good;
                                  });
  good = std::fclose(file) == 0 && good;
  if (!answer.ok() || !good || bytes == 0) std::remove(path.c_str());
  if (!answer.ok()) return answer.error();
  if (!good) return Error{ErrorCode::kUnavailable, path + ": " + std::strerror(errno)};
  std::fprintf(stderr, "%s: %s; open it at https://ui.perfetto.dev or in chrome://tracing\n", path.c_str(),
               format_bytes(int64_t(bytes)).c_str());
  return 0;
}

}  // namespace

void add_top(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("top", "A server's live state in the terminal");
  const auto remote = RemoteConsole::add_flags(*command);
  const auto once = std::make_shared<bool>(false);
  command->add_flag("--once", *once, "Print it once");
  command->callback([remote, once, &status] { status = exit_status(top(*remote, *once)); });
}

void add_trace(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("trace", "Record what a server's threads do, for Perfetto");
  const auto remote = RemoteConsole::add_flags(*command);
  const auto length = std::make_shared<double>(5);
  const auto path = std::make_shared<std::string>("spillway-trace.json");
  command->add_option("--seconds", *length, "How long")->capture_default_str()->check(CLI::Range(0.1, 60.0));
  command->add_option("--output,-o", *path, "File to write")->capture_default_str();
  command->callback([remote, length, path, &status] { status = exit_status(trace(*remote, *length, *path)); });
}

}  // namespace spillway::apps
