#!/usr/bin/env python3
"""Overload: what a server does at 1, 2, 5 and 10 times what it can.

  bench/overload.py [--spillway build/release/spillway] [--seconds 10] [--rounds 1] [--ttft 1.0] [--itl 0.1] [--cores 0,1] [-- flags for serve]

Starts `spillway serve` on a free port (the embedded model unless flags say otherwise), finds its capacity with waiting
clients, then offers Poisson arrivals at multiples of it with `spillway bench load`, and prints goodput, first token of
the admitted, refusals and memory. Rounds go through the levels by turns, so that a machine that gives more or less by the
minute weighs on all: rates are the rounds' medians, the rest is their worst. The server and the load share the machine's cores: the generator's share of them is
printed, and "of rest" is the goodput against the peak times the share of the machine that was left for the server; with
--cores the server has those for itself, the generator the others, and all of the peak is expected. Exit status 1 when
an objective is missed: goodput under 95% of that (of the offered load, where it is less), admitted p99 over the
objective, a refusal over 10 ms or without Retry-After, memory that grows by more than 5%.
"""
import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

from cores import Cores

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MULTIPLES = (1, 2, 5, 10)
CLIENTS = (16, 64)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def children_cpu_seconds():
    """Of children that have ended, so not of the server."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Server:
    def __init__(self, binary, flags, cores=Cores()):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process = subprocess.Popen(cores.confined(binary, "serve", "--port", str(self.port), "--metrics-port", "0", "--grpc-port", "0", *flags))

    def __enter__(self):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"overload.py: the server ended with status {self.process.returncode}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=2) as answer:
                    if answer.status == 200:
                        return self
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.1)
        sys.exit("overload.py: the server was not ready within 300 s")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def load(args, url, *flags):
    command = [args.spillway, "bench", "load", "--url", url, "--duration", str(args.seconds), "--max-tokens",
               str(args.max_tokens), "--objective-first-token", str(args.ttft), "--objective-between-tokens", str(args.itl),
               "--json", *flags]
    before, start = children_cpu_seconds(), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"overload.py: {' '.join(command)} ended with status {done.returncode}")
    share = (children_cpu_seconds() - before) / ((time.monotonic() - start) * len(os.sched_getaffinity(0)))
    return {"generator_share": 0 if args.cores else share, **json.loads(done.stdout.strip().splitlines()[-1])}


def over_rounds(reports):
    """One report of several: medians of rates and shares, sums of counts, the worst of times and memory."""
    def merged(name, values):
        if isinstance(values[0], dict):
            return {key: merged(key, [v[key] for v in values]) for key in values[0] if all(key in v for v in values)}
        if isinstance(values[0], list):
            return sum(values, [])
        if not isinstance(values[0], (int, float)):
            return values[0]
        if name.endswith(("_per_s", "_share")):
            return statistics.median(values)
        return max(values) if name.endswith(("_s", "_mib")) else sum(values)
    return merged("", reports)


def measure(args):
    with Server(args.spillway, args.serve, Cores(args.cores)) as server:
        load(args, server.url, "--clients", "4", "--requests", "50")
        load(args, server.url, "--rate", "2000", "--requests", "2000")  # queue and connections have once been full
        capacity = max(load(args, server.url, "--clients", str(n))["completed_per_s"] for n in CLIENTS)
        memory = resident_mib(server.process.pid)
        print(f"capacity {capacity:.1f} requests/s with up to {CLIENTS[-1]} waiting clients; {memory:.0f} MiB resident\n")
        print(f"{'load':>5}{'offered/s':>11}{'goodput/s':>11}{'of peak':>9}{'generator':>11}{'of rest':>9}{'admitted':>10}{'ttft p50':>10}{'ttft p99':>10}"
              f"{'refused':>9}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'no retry':>9}{'failed':>8}{'late p99':>10}{'MiB':>7}")
        reports = {multiple: [] for multiple in MULTIPLES}
        for _ in range(args.rounds):
            for multiple in MULTIPLES:
                report = load(args, server.url, "--rate", str(capacity * multiple))
                reports[multiple].append({**report, "resident_mib": resident_mib(server.process.pid)})
        rows = [{**over_rounds(each), "multiple": multiple} for multiple, each in reports.items()]
    peak = max(rows, key=lambda row: row["goodput_per_s"])
    for row in rows:
        left = (1 - row["generator_share"]) / (1 - peak["generator_share"])
        row["possible_per_s"] = min(peak["goodput_per_s"] * min(left, 1), row["offered_per_s"])
        print_row(row, peak["goodput_per_s"])
    return rows, memory


def print_row(row, peak):
    refusal = row["refusal"]
    print(f"{row['multiple']:>4}x{row['offered_per_s']:>11.1f}{row['goodput_per_s']:>11.1f}"
          f"{100 * row['goodput_per_s'] / max(peak, 1e-9):>8.1f}%{100 * row['generator_share']:>10.1f}%"
          f"{100 * row['goodput_per_s'] / max(row['possible_per_s'], 1e-9):>8.1f}%{row['completed']:>10}{row['ttft']['p50_s'] * 1e3:>10.1f}"
          f"{row['ttft']['p99_s'] * 1e3:>10.1f}{row['refused']:>9}{refusal['p50_s'] * 1e3:>8.1f}{refusal['p99_s'] * 1e3:>8.1f}"
          f"{refusal['max_s'] * 1e3:>8.1f}{row['refused_without_retry_after']:>9}{row['failed']:>8}"
          f"{row['lateness']['p99_s'] * 1e3:>10.1f}{row['resident_mib']:>7.0f}")


def misses(args, rows, memory):
    for row in rows:
        name = f"{row['multiple']}x"
        wanted = row["possible_per_s"]
        if row["goodput_per_s"] < 0.95 * wanted:
            yield f"{name}: goodput {100 * row['goodput_per_s'] / wanted:.1f}% of what could be answered, expected 95%"
        if row["ttft"]["p99_s"] > args.ttft:
            yield f"{name}: first token p99 of the admitted {row['ttft']['p99_s']:.3f} s, expected {args.ttft} s"
        if row["refusal"]["max_s"] > 0.010:
            yield f"{name}: slowest refusal {row['refusal']['max_s'] * 1e3:.1f} ms, expected 10 ms"
        if row["refused_without_retry_after"]:
            yield f"{name}: {row['refused_without_retry_after']} refusals without Retry-After"
        if row["failed"]:
            yield f"{name}: {row['failed']} failures: {row['errors']}"
    if rows[-1]["resident_mib"] > 1.05 * memory:
        yield f"memory grew from {memory:.0f} to {rows[-1]['resident_mib']:.0f} MiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default=os.path.join(ROOT, "build/release/spillway"))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ttft", type=float, default=1.0)
    parser.add_argument("--itl", type=float, default=0.1)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--cores", help=Cores.HELP)
    parser.add_argument("serve", nargs="*", help="flags for spillway serve, after --")
    args = parser.parse_args()
    if not args.serve:  # a wait that leaves room for the prefill within the objective, and all memory from the start
        args.serve = ["--queue-wait-max", f"{args.ttft * 300:.0f}ms", "--kv-cache", "64MiB", "--kv-populate"]
    rows, memory = measure(args)
    missed = list(misses(args, rows, memory))
    print()
    for miss in missed:
        print(f"missed: {miss}")
    if not missed:
        print("every objective is met")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
