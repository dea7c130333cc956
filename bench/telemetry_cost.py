#!/usr/bin/env python3
"""What telemetry costs: tiny-r1 under load with everything on (hardware, feedback, spans, the spool into InfluxDB and Prometheus
remote write, scrapes) beside everything off. Two servers live throughout; short slices of load go to one and the
other by turns (off on on off ...), so that whatever else the machine does meets both alike. The receivers are stand-ins that
take everything, so that their own work is not measured. Prints for processor time a request, throughput and p99 the median of
the paired ratios and the ratio of the sums, in which also what comes rarely counts, each with its 95% confidence interval
(bootstrap over pairs); with --null off against off, which says what the machine alone makes of it.

  bench/telemetry_cost.py [--pairs 60] [--requests 100] [--clients 8] [--interval 10s] [--scrape 15] [--program build/release/spillway] [--null] [--cores 0,1/3,4]
"""
import argparse
import concurrent.futures
import http.server
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from cores import Cores


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


def slice_of_load(args, url, seed, process):
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


def interval(pairs, figure, rounds=1000):
    """What figure says of the pairs, with its 95% interval."""
    draw = random.Random(1)
    drawn = sorted(figure(draw.choices(pairs, k=len(pairs))) for _ in range(rounds))
    return f"{figure(pairs):.4f} ({drawn[int(0.025 * rounds)]:.4f} to {drawn[int(0.975 * rounds)]:.4f})"


def measure(args, number, confined, sink, folder):
    """The pairs of two servers that live as long as this, and the counters of the one with telemetry."""
    nothing = ["--no-telemetry-hardware", "--no-feedback", "--telemetry-interval", "3600s"]
    everything = ["--telemetry-interval", args.interval, "--spool-dir", str(folder / "spool"), "--influxdb-url", sink, "--remote-write-url",
                  sink + "/api/v1/write", "--otlp-url", sink + "/v1/traces"]
    off, off_url = start(confined, args.program, folder / "off", *nothing)
    on, on_url = start(confined, args.program, folder / "on", *(nothing if args.null else everything))
    stop = threading.Event()

    def scrape():
        while not stop.wait(args.scrape):
            urllib.request.urlopen(on_url + "/metrics", timeout=30).read()

    if not args.null:
        threading.Thread(target=scrape, daemon=True).start()
    pairs = []
    try:
        for turn in range(args.pairs + 2):
            both = [("off", off_url, off), ("on", on_url, on)]
            seed = number * (args.pairs + 2) + turn
            found = {name: slice_of_load(args, url, seed, process)
                     for name, url, process in (both if turn % 2 else reversed(both))}
            if turn >= 2:  # the first warm both
                pairs.append(found)
        text = urllib.request.urlopen(on_url + "/metrics").read().decode()
    finally:
        stop.set()
        for process in (off, on):
            process.terminate()
            process.wait()
    counters = ("spillway_telemetry_sampling_cpu_seconds_total ", "process_cpu_seconds_total ")
    return pairs, [line for line in text.splitlines() if line.startswith(counters)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=60)
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
    folders = [folder / str(number) for number in range(len(cores.sets))]
    for each in folders:
        each.mkdir()
    with concurrent.futures.ThreadPoolExecutor(len(folders)) as pool:
        done = list(pool.map(lambda number: measure(args, number, cores.sets[number], sink, folders[number]), range(len(folders))))
    pairs = [pair for some, _ in done for pair in some]
    print(f"{len(pairs)} pairs of {args.requests} requests" + (", off against off" if args.null else ""))
    for key in pairs[0]["on"]:
        values = [(pair["off"][key], pair["on"][key]) for pair in pairs]
        a, b = (statistics.median(side) for side in zip(*values))
        median = interval(values, lambda some: statistics.median(on / off for off, on in some))
        sums = interval(values, lambda some: sum(on for _, on in some) / sum(off for off, _ in some))
        print(f"{key:18} off {a:9.1f}  on {b:9.1f}  on/off: median {median}, of sums {sums}")
    for line in (line for _, lines in done for line in lines):
        print(line)


if __name__ == "__main__":
    main()
