#!/usr/bin/env python3
"""What telemetry costs: tiny-r1 under load with everything on (hardware, feedback, spans, the spool into InfluxDB and Prometheus
remote write, a scrape a second) beside everything off, in turns on the same machine. The receivers are stand-ins that take
everything, so that their own work is not measured. Prints throughput, latencies and the ratios of the medians.

  bench/telemetry_cost.py [--rounds 5] [--seconds 8] [--clients 8] [--program build/release/spillway]
"""
import argparse
import http.server
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request


class Taker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def start(program, folder, *flags):
    folder.mkdir()
    port_file = folder / "port"
    process = subprocess.Popen([program, "serve", "--port", "0", "--port-file", str(port_file), "--metrics-port", "0", *flags],
                               stdout=subprocess.DEVNULL, stderr=open(folder / "log.txt", "w"))
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
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(args, url, seed, process):
    before = cpu_s(process)
    out = subprocess.run([args.program, "bench", "load", "--url", url + "/v1", "--clients", str(args.clients), "--duration",
                          str(args.seconds), "--seed", str(seed), "--json"], capture_output=True, text=True, check=True).stdout
    report = json.loads(out)
    tokens = report.get("tokens") or report.get("completion_tokens") or report.get("output_tokens") or 0
    report["cpu_s"] = cpu_s(process) - before
    if tokens:
        report["cpu_us_per_token"] = 1e6 * report["cpu_s"] / tokens
    return report


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--program", default="build/release/spillway")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="telemetry_cost_"))
    taker = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=taker.serve_forever, daemon=True).start()
    sink = f"http://127.0.0.1:{taker.server_port}"
    off, off_url = start(args.program, folder / "off", "--no-telemetry-hardware", "--no-feedback", "--telemetry-interval", "3600s")
    on, on_url = start(args.program, folder / "on", "--telemetry-interval", "1s", "--spool-dir", str(folder / "spool"), "--influxdb-url",
                       sink, "--remote-write-url", sink + "/api/v1/write", "--otlp-url", sink + "/v1/traces")
    stop = threading.Event()

    def scrape():
        while not stop.wait(1):
            urllib.request.urlopen(on_url + "/metrics", timeout=30).read()

    threading.Thread(target=scrape, daemon=True).start()
    found = {"off": [], "on": []}
    try:
        for seed in range(args.rounds + 1):
            turns = [("off", off_url, off), ("on", on_url, on)]
            for name, url, process in turns if seed % 2 else reversed(turns):
                report = load(args, url, seed, process)
                if seed > 0:  # the first warms both
                    found[name].append(report)
        text = urllib.request.urlopen(on_url + "/metrics").read().decode()
    finally:
        stop.set()
        for process in (off, on):
            process.terminate()
            process.wait()
    totals = {name: 1e6 * sum(r["cpu_s"] for r in runs) / sum(r["tokens"] for r in runs) for name, runs in found.items()}
    print(f"CPU us per token, all rounds together: off {totals['off']:.2f}  on {totals['on']:.2f}  on/off {totals['on'] / totals['off']:.4f}")
    keys = [key for key, value in found["on"][0].items() if isinstance(value, (int, float))]
    for key in keys:
        a, b = (statistics.median(run[key] for run in found[name]) for name in ("off", "on"))
        if a:
            print(f"{key:34} off {a:12.4f}  on {b:12.4f}  on/off {b / a:.4f}")
    for line in text.splitlines():
        if line.startswith(("spillway_telemetry_sampling_cpu_seconds_total ", "process_cpu_seconds_total ")):
            print(line)


if __name__ == "__main__":
    main()
