"""Which cores of the machine are for what is measured, and which for the programs that measure it."""
import functools
import os
import re


class Cores:
    """With a list such as "0,1" confined commands have those cores; this process and its other children have all others."""
    HELP = "cores for what is measured alone, such as 0,1; the load has the others"

    def __init__(self, measured=None):
        self.measured = measured
        if measured:
            rest = os.sched_getaffinity(0) - {int(core) for core in re.split("[,/]", measured)}
            if not rest:
                raise SystemExit(f"--cores {measured} leaves none for the load")
            os.sched_setaffinity(0, rest)

    @property
    def sets(self):
        """How to confine a command, for each set of a list such as "0,1/3,4"."""
        return [functools.partial(confined, one) for one in self.measured.split("/")] if self.measured else [self.confined]

    def confined(self, *command):
        return confined(self.measured, *command)

    def fake_threads(self):
        return max(1, len(os.sched_getaffinity(0)) // 4)


def confined(cores, *command):
    command = [str(part) for part in command]
    return ["taskset", "-c", cores, *command] if cores else command
