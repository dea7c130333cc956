// Signals as the commands use them: counted by a handler that does nothing else, polled or waited for by the program.
#pragma once

namespace spillway::apps {

// Counts SIGINT and SIGTERM from now on; the second of them ends the process at once with status 130.
void catch_stop_signals();
int stop_signals();

// Counts SIGHUP from now on.
void catch_reload_signal();
int reload_signals();

// Counts SIGINT alone, without end, for interactive programs. Reads are interrupted.
void catch_interrupts();
int interrupts();

// Sleeps until a counted signal comes, or the seconds are over.
void wait_for_signal(double seconds);

}  // namespace spillway::apps
