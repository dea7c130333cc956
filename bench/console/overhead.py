"""What watching costs: throughput and p99 of a server nobody looks at, with a console open, and while it is traced, by
turns in one run.

    .venv/e2e/bin/python bench/console/overhead.py [--rounds 3] [--seconds 4]"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time

import httpx

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/spillway"


def load(url, seconds):
    out = subprocess.run([BINARY, "bench", "load", "--url", url + "/v1", "--clients", "32", "--duration", str(seconds), "--max-tokens", "32", "--json"],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)


def watch(url, stop):
    with httpx.stream("GET", url + "/console/api/events", timeout=30) as stream:
        for _ in stream.iter_bytes():
            if stop.is_set():
                return


def trace(url, stop):
    while not stop.is_set():
        httpx.post(url + "/console/api/trace?seconds=3", timeout=60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port_file = pathlib.Path(folder) / "port"
        server = subprocess.Popen([BINARY, "serve", "--port", "0", "--port-file", port_file, "--metrics-port", "0"], stderr=subprocess.DEVNULL)
        try:
            while not port_file.exists():
                time.sleep(0.05)
            url = f"http://127.0.0.1:{int(port_file.read_text())}"
            while httpx.get(url + "/health/ready").status_code != 200:
                time.sleep(0.05)
            load(url, 1)
            results = {"nobody looks": [], "a console is open": [], "traced": []}
            for _ in range(options.rounds):
                for name, action in (("nobody looks", None), ("a console is open", watch), ("traced", trace)):
                    stop = threading.Event()
                    thread = threading.Thread(target=action, args=(url, stop)) if action else None
                    if thread:
                        thread.start()
                        time.sleep(1)
                    results[name].append(load(url, options.seconds))
                    stop.set()
                    if thread:
                        thread.join()
        finally:
            server.terminate()
            server.wait(30)
    base = None
    for name, runs in results.items():
        rate = statistics.median(run["tokens_per_s"] for run in runs)
        p99 = statistics.median(run["total"]["p99_s"] for run in runs)
        base = base or (rate, p99)
        print(f"{name:<20} {rate:9.0f} tokens/s ({100 * (rate / base[0] - 1):+.1f}%)   p99 {1000 * p99:7.1f} ms ({100 * (p99 / base[1] - 1):+.1f}%)")


if __name__ == "__main__":
    main()
