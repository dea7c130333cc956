#!/usr/bin/env python3
"""What telemetry costs: tiny-r1 under load with everything on (hardware, feedback, spans, the spool into InfluxDB and Prometheus
remote write, scrapes) beside everything off. Short slices of load go to one server and the other by turns (off on on off ...),
so that whatever else the machine does meets both alike. Two processes of one program differ by a percent or two for as long as
they live (where their memory happens to lie), so new ones are started --processes times. The receivers are stand-ins that
take everything, so that their own work is not measured. Prints for processor time a request, throughput and p99 the median of
the paired ratios and the ratio of the sums, in which also what comes rarely counts, each with its 95% confidence interval
(bootstrap over the pairs of processes); with --null off against off, which says what the machine alone makes of it.

  bench/telemetry_cost.py [--processes 6] [--pairs 10] [--requests 100] [--clients 8] [--interval 10s] [--scrape 15] [--program build/release/spillway] [--null] [--cores 0,1/3,4]
"""
import argparse
import concurrent.futures
import http.server
import json
import pathlib
import queue
import random
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from cores import Cores


COUNTERS = ("process_cpu_seconds_total", "spillway_telemetry_sampling_cpu_seconds_total")


class Taker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def start(confined, program, folder, *flags):
    folder.mkdir()
    port_file = folder / "port"
    command = confined(program, "serve", "--port", "0", "--port-file", port_file, "--metrics-port", "0", "--grpc-port", "0", *flags)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(folder / "log.txt", "w"))
    while not port_file.exists():
        time.sleep(0.05)
    url = f"http://127.0.0.1:{port_file.read_text().strip()}"
    for _ in range(200):
        try:
            urllib.request.urlopen(url + "/health/ready", timeout=5).read()
            return process, url
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def cpu_s(process):
    """Processor time of all its threads, to the nanosecond: the kernel's clock of another process."""
    return time.clock_gettime((~process.pid << 3) | 2)


def slice_of_load(args, seed, process, url):
    before = cpu_s(process)
    out = subprocess.run([args.program, "bench", "load", "--url", url + "/v1", "--clients", str(args.clients), "--duration", "600",
                          "--requests", str(args.requests), "--seed", str(seed), "--json"],
                         capture_output=True, text=True, check=True).stdout
    spent = cpu_s(process) - before
    report = json.loads(out)
    done = report["completed"]
    if done != args.requests:
        raise SystemExit(f"expected {args.requests} answers, found {done}: {out}")
    return {"cpu a request, us": 1e6 * spent / done, "requests/s": report["completed_per_s"],
            "p99, ms": 1e3 * report["total"]["p99_s"]}


def interval(lives, figure, rounds=1000):
    """What figure says of the pairs of all lives, with its 95% interval."""
    draw = random.Random(1)
    drawn = sorted(figure(sum(draw.choices(lives, k=len(lives)), [])) for _ in range(rounds))
    return f"{figure(sum(lives, [])):.4f} ({drawn[int(0.025 * rounds)]:.4f} to {drawn[int(0.975 * rounds)]:.4f})"


def life(args, number, confined, sink, folder):
    """Starts a server without and one with telemetry; the pairs measured of them, and the second one's counters."""
    nothing = ["--no-telemetry-hardware", "--no-feedback", "--telemetry-interval", "3600s"]
    everything = ["--telemetry-interval", args.interval, "--spool-dir", str(folder / "spool"), "--influxdb-url", sink, "--remote-write-url",
                  sink + "/api/v1/write", "--otlp-url", sink + "/v1/traces"]
    started = {"off": nothing, "on": nothing if args.null else everything}
    names = sorted(started, reverse=bool(number % 2))
    servers = {name: start(confined, args.program, folder / name, *started[name]) for name in names}
    stop = threading.Event()

    def scrape():
        wait = random.Random(number).uniform(0, args.scrape)  # so that short lives meet as many in the mean
        while not stop.wait(wait):
            urllib.request.urlopen(servers["on"][1] + "/metrics", timeout=30).read()
            wait = args.scrape

    if not args.null:
        threading.Thread(target=scrape, daemon=True).start()
    pairs = []
    try:
        for turn in range(args.pairs + 1):
            seed = number * (args.pairs + 1) + turn
            found = {name: slice_of_load(args, seed, *servers[name]) for name in (names if turn % 2 else reversed(names))}
            if turn:  # the first warms both
                pairs.append(found)
        text = urllib.request.urlopen(servers["on"][1] + "/metrics").read().decode()
    finally:
        stop.set()
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    return pairs, [float(line.split()[1]) for name in COUNTERS for line in text.splitlines() if line.startswith(name + " ")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=6, help="how often both servers are started anew")
    parser.add_argument("--pairs", type=int, default=10, help="of slices, for each")
    parser.add_argument("--requests", type=int, default=100, help="in a slice")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--interval", default="10s", help="between readings; 1s is the hardest")
    parser.add_argument("--scrape", type=float, default=15, help="seconds between scrapes, as deploy/prometheus has it")
    parser.add_argument("--program", default="build/release/spillway")
    parser.add_argument("--null", action="store_true", help="off against off: what the machine alone can make of it")
    parser.add_argument("--cores", help=Cores.HELP + "; several pairs of servers at once: 0,1/3,4/6,7")
    args = parser.parse_args()
    cores = Cores(args.cores)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="telemetry_cost_"))
    taker = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=taker.serve_forever, daemon=True).start()
    sink = f"http://127.0.0.1:{taker.server_port}"
    numbers = queue.SimpleQueue()
    for number in range(args.processes):
        numbers.put(number)
    lives, counters = [], []

    def work(confined):
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            (folder / str(number)).mkdir()
            pairs, counted = life(args, number, confined, sink, folder / str(number))
            lives.append(pairs)
            counters.append(counted)

    with concurrent.futures.ThreadPoolExecutor(len(cores.sets)) as pool:
        list(pool.map(work, cores.sets))
    print(f"{args.processes} pairs of processes, {args.pairs} pairs of {args.requests} requests each" +
          (", off against off" if args.null else ""))
    for key in lives[0][0]["on"]:
        values = [[(pair["off"][key], pair["on"][key]) for pair in pairs] for pairs in lives]
        a, b = (statistics.median(side) for side in zip(*sum(values, [])))
        median = interval(values, lambda some: statistics.median(on / off for off, on in some))
        sums = interval(values, lambda some: sum(on for _, on in some) / sum(off for off, _ in some))
        print(f"{key:18} off {a:9.1f}  on {b:9.1f}  on/off: median {median}, of sums {sums}")
    for name, spent in zip(COUNTERS, zip(*counters)):
        print(name, f"{sum(spent):.3f}")


if __name__ == "__main__":
    main()
