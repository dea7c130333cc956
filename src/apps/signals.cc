#include "apps/signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

namespace spillway::apps {
namespace {

constexpr int kExitBySignal = 130;

volatile std::sig_atomic_t stops = 0;
volatile std::sig_atomic_t reloads = 0;
volatile std::sig_atomic_t keyboard = 0;

// Wakes wait_for_signal(), whichever thread the handler ran on.
int wake_fd() {
  static const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd;
}

void wake() {
  const int saved = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake_fd(), &one, sizeof(one));
  errno = saved;
}

void on_stop(int) {
  stops = stops + 1;
  if (stops > 1) _exit(kExitBySignal);
  wake();
}

void on_reload(int) {
  reloads = reloads + 1;
  wake();
}

void on_keyboard(int) {
  keyboard = keyboard + 1;
  wake();
}

void install(int signal, void (*handler)(int), int flags) {
  wake_fd();  // made here, not in the handler
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

void catch_stop_signals() {
  install(SIGINT, on_stop, SA_RESTART);
  install(SIGTERM, on_stop, SA_RESTART);
}
int stop_signals() { return stops; }

void catch_reload_signal() { install(SIGHUP, on_reload, SA_RESTART); }
int reload_signals() { return reloads; }

void catch_interrupts() { install(SIGINT, on_keyboard, 0); }
int interrupts() { return keyboard; }

void wait_for_signal(double seconds) {
  pollfd waiting{wake_fd(), POLLIN, 0};
  poll(&waiting, 1, int(seconds * 1000));
  uint64_t count = 0;
  [[maybe_unused]] const auto got = read(wake_fd(), &count, sizeof(count));
}

}  // namespace spillway::apps
