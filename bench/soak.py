#!/usr/bin/env python3
"""Soak: many short requests through the real server, some of whose clients leave half-way.

  bench/soak.py [--spillway build/release/spillway] [--requests 20000] [--clients 24] [--leave 0.3] [-- flags for serve]

Clients hang up at random: before the answer, within the stream, or not at all. Prints resident memory and pages as it goes.
Exit status 1 when, once all is quiet, a page is still in use (neither free nor in the prefix cache alone), a request is still counted, a request
failed, or memory grew by more than 5% after the first tenth.
"""
import argparse
import json
import os
import random
import re
import socket
import sys
import threading
import time
import urllib.request

from overload import ROOT, Server, resident_mib


def request_bytes(rng, stream):
    body = json.dumps({"model": "tiny-r1", "stream": stream, "max_tokens": rng.randint(1, 12), "temperature": 0,
                       "messages": [{"role": "user", "content": f"What is {rng.randint(10, 99)} + {rng.randint(10, 99)}?"}]})
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode()


class Client(threading.Thread):
    """One connection at a time; a new one after it hung up."""

    def __init__(self, port, count, leave, seed):
        super().__init__(daemon=True)
        self.port, self.count, self.leave, self.rng = port, count, leave, random.Random(seed)
        self.done = self.left = self.refused = 0
        self.failures = []
        self.socket = None

    def run(self):
        for _ in range(self.count):
            try:
                self.one()
            except OSError as error:
                self.failures.append(str(error))
                self.hang_up()
        self.hang_up()

    def hang_up(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def one(self):
        if not self.socket:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        stream = self.rng.random() < 0.7
        self.socket.sendall(request_bytes(self.rng, stream))
        if self.rng.random() < self.leave:
            if self.rng.random() < 0.7:
                self.socket.recv(self.rng.choice((1, 200, 2000)))
            self.hang_up()
            self.left += 1
            return
        answer = b""
        while not self.ended(answer):
            piece = self.socket.recv(65536)
            if not piece:
                self.failures.append(f"cut after {len(answer)} bytes")
                return self.hang_up()
            answer += piece
        status = int(answer.split(b" ", 2)[1])
        self.done += status == 200
        self.refused += status in (429, 503)
        if status not in (200, 429, 503):
            self.failures.append(f"status {status}")

    @staticmethod
    def ended(answer):
        head, mark, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        return bool(mark) and (len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n"))


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def pages(values):
    return {state: values.get(f'spillway_engine_kv_pages{{state="{state}"}}') for state in ("free", "cached", "used")}


def quiet(port):
    """Waits until no request is counted, and returns the metrics then."""
    for _ in range(100):
        values = metrics(port)
        if not values.get("spillway_engine_requests_running") and not values.get("spillway_engine_requests_waiting"):
            return values
        time.sleep(0.1)
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default=os.path.join(ROOT, "build/release/spillway"))
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--leave", type=float, default=0.3, help="share of requests whose client hangs up")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("serve", nargs="*", help="flags for spillway serve, after --")
    args = parser.parse_args()
    # The requests that feedback can find are a bounded number, which is reached in the first tenth.
    flags = args.serve or ["--kv-cache", "64MiB", "--kv-populate", "--feedback-requests-max", str(max(1, args.requests // 20))]
    with Server(args.spillway, flags) as server:
        each = -(-args.requests // args.clients)
        clients = [Client(server.port, each, args.leave, args.seed * 1000 + i) for i in range(args.clients)]
        started = time.monotonic()
        for client in clients:
            client.start()
        base = None
        print(f"{'seconds':>8}{'answered':>10}{'left':>8}{'refused':>9}{'MiB':>8}")
        while any(client.is_alive() for client in clients):
            time.sleep(1)
            done, left = sum(c.done for c in clients), sum(c.left for c in clients)
            memory = resident_mib(server.process.pid)
            if base is None and done + left >= args.requests / 10:
                base = memory
            print(f"{time.monotonic() - started:>8.0f}{done:>10}{left:>8}{sum(c.refused for c in clients):>9}{memory:>8.1f}",
                  flush=True)
        values = quiet(server.port)
        memory = resident_mib(server.process.pid)
    failures = [failure for client in clients for failure in client.failures]
    return verdict(values, base or memory, memory, failures)


def verdict(values, base, memory, failures):
    found = pages(values)
    print(f"at the end: pages {found}, {memory:.1f} MiB ({base:.1f} after a tenth), {len(failures)} failures")
    missed = []
    if None in found.values() or found["used"]:
        missed.append(f"pages: expected none in use, found {found}")
    if values.get("spillway_engine_requests_running") or values.get("spillway_engine_requests_waiting"):
        missed.append("requests are still counted")
    if memory > 1.05 * base:
        missed.append(f"memory grew from {base:.1f} to {memory:.1f} MiB")
    if failures:
        missed.append(f"{len(failures)} failures, the first: {failures[0]}")
    for miss in missed:
        print(f"missed: {miss}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
