#!/usr/bin/env python3
"""The spool through a long outage: InfluxDB is down for --minutes while the program takes about 5,000 points a second; it is
killed in the middle, and the disk (a small file system of its own, which needs root) is filled once. Then InfluxDB starts
and every reading must be there once. Prints what was found; ends with 1 if a reading is missing.

Two minutes by default; with --minutes 10 the outage that the aim names.

  bench/spool_outage.py [--minutes 1.2] [--program build/release/spillway]
"""
import argparse
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

INTERVAL_S = 0.1
ARMS = 12  # so that a reading has about 600 points
SERIES = "spillway_telemetry_readings_total"  # its value is the number of the reading in its process


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fetch(url, data=None):
    with urllib.request.urlopen(url, data=data, timeout=60) as answer:
        return answer.read().decode()


class Influx:
    def __init__(self, folder):
        self.url = f"http://127.0.0.1:{free_port()}"
        folder.mkdir()
        (folder / "influxdb.conf").write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n[meta]\ndir = "{folder}/meta"\n'
            f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n[http]\nbind-address = "{self.url[7:]}"\nlog-enabled = false\n')
        self.config = folder / "influxdb.conf"

    def start(self):
        self.process = subprocess.Popen(["influxd", "-config", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                fetch(self.url + "/ping")
                break
            except OSError:
                time.sleep(0.1)
        fetch(self.url + "/query", b"q=CREATE DATABASE spillway")

    def query(self, text):
        found = json.loads(fetch(self.url + "/query?" + urllib.parse.urlencode({"db": "spillway", "epoch": "ms", "q": text})))
        return found["results"][0].get("series", [])


class Program:
    def __init__(self, args, folder, influx, spool):
        self.port_file = folder / "port"
        self.port_file.unlink(missing_ok=True)
        self.log = open(folder / "log.txt", "a")
        self.process = subprocess.Popen(
            [args.program, "serve", "--port", "0", "--port-file", str(self.port_file), "--metrics-port", "0", "--telemetry-interval",
             f"{INTERVAL_S}s", "--spool-dir", str(spool), "--influxdb-url", influx.url, "--spool-bytes-max", "512MiB"],
            stdout=self.log, stderr=self.log)
        while not self.port_file.exists():
            time.sleep(0.05)

    def metric(self, name):
        text = fetch(f"http://127.0.0.1:{self.port_file.read_text().strip()}/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))

    def load(self):
        """Answers and feedback to them in a few arms, so that there are enough series for 5,000 points a second."""
        chat = {"model": "tiny-r1", "max_tokens": 4, "messages": [{"role": "user", "content": "1 + 1?"}]}
        for arm in range(ARMS):
            for _ in range(100):
                try:
                    answer = self.post("/v1/chat/completions", chat, {"X-Experiment-Arm": f"arm-{arm}"})
                    break
                except urllib.error.HTTPError:
                    time.sleep(0.1)  # it still loads
            self.post("/v1/feedback", {"request_id": answer.headers["X-Request-Id"], "conversion": True, "value": arm + 1,
                                       "relevance": [arm, 1, 0], "correct": True, "thumbs": "up"}, {})

    def post(self, path, body, headers):
        url = f"http://127.0.0.1:{self.port_file.read_text().strip()}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return answer


def fill(spool, seconds):
    """Fills the spool's file system for so long."""
    ballast = spool / "ballast"
    with open(ballast, "wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\1" * 65536)
        except OSError as error:
            print(f"the disk is full: {error.strerror}")
    time.sleep(seconds)
    ballast.unlink()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1.2)
    parser.add_argument("--program", default="build/release/spillway")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="spool_outage_"))
    spool = folder / "spool"
    spool.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", spool]).returncode == 0
    influx = Influx(folder / "influx")
    half = args.minutes * 60 / 2
    starts, ends = [], []
    try:
        starts.append(time.time())
        program = Program(args, folder, influx, spool)
        program.load()
        if mounted:
            time.sleep(half / 2)
            fill(spool, 10)
            time.sleep(max(0, half / 2 - 10))
        else:
            time.sleep(half)
        program.process.send_signal(signal.SIGKILL)
        ends.append(time.time())
        program.process.wait()
        print(f"killed after {ends[0] - starts[0]:.0f} s")
        starts.append(time.time())
        program = Program(args, folder, influx, spool)
        program.load()
        time.sleep(half)
        print(f"spool: {program.metric('spillway_telemetry_spool_bytes') / 1e6:.1f} MB, lost: "
              f"{program.metric('spillway_telemetry_points_lost_total'):.0f}, dropped bytes: "
              f"{program.metric('spillway_telemetry_spool_dropped_bytes'):.0f}")
        influx.start()
        back = time.time()
        time.sleep(1)
        while program.metric("spillway_telemetry_lag_seconds") > 1:
            time.sleep(0.5)
        print(f"drained in {time.time() - back:.0f} s")
        ends.append(time.time() - 1)
        return check(influx, starts, ends)
    finally:
        program.process.terminate()
        program.process.wait()
        if hasattr(influx, "process"):
            influx.process.terminate()
            influx.process.wait()
        if mounted:
            subprocess.run(["umount", "-l", spool])


def check(influx, starts, ends):
    rows = influx.query(f'SELECT value FROM "{SERIES}"')[0]["values"]
    times = [at for at, _ in rows]
    points = sum(series["values"][0][1] for series in influx.query("SELECT count(value) FROM /.*/"))
    written_s = sum(end - start for start, end in zip(starts, ends))
    print(f"points: {points}, readings: {len(times)}, points/s: {points / written_s:.0f}, twice: {len(times) - len(set(times))}")
    good = times == sorted(set(times))
    begin = starts[0]
    for start, end in zip(starts, ends):
        part = [(at, value) for at, value in rows if begin <= at / 1000 <= end]
        begin = end  # the first was killed then
        missing = [i for i, (_, value) in enumerate(part, 1) if value != i]
        print(f"run of {end - start:.0f} s: {len(part)} readings (about {(end - start) / INTERVAL_S:.0f} intervals), "
              f"{'none missing' if not missing else 'first missing: ' + str(missing[0])}")
        good &= not missing and len(part) > 0 and every_series_is_whole(influx, [at for at, _ in part])
    print("every point arrived once" if good else "points are missing or came twice")
    return 0 if good else 1


def every_series_is_whole(influx, times):
    """Each series has a point of every reading from its first to its last in this run."""
    number = {at: i for i, at in enumerate(times)}
    where = f"WHERE time >= {times[0]}ms AND time <= {times[-1]}ms GROUP BY *"

    def ask(what):
        return {(one["name"], tuple(sorted(one["tags"].items()))): one["values"][0]
                for one in influx.query(f"SELECT {what} FROM /.*/ {where}")}

    counts, first, last = ask("count(value)"), ask("first(value)"), ask("last(value)")
    holed = [name for name, (_, count) in counts.items()
             if number[last[name][0]] - number[first[name][0]] + 1 != count]
    # "Not a number" is no point to InfluxDB: such a series begins and ends when it has a value.
    print(f"  {len(counts)} series, {len(holed)} with a hole" + (f", the first: {holed[0]}" if holed else ""))
    return not holed


if __name__ == "__main__":
    sys.exit(main())
