#!/usr/bin/env python3
"""Idle streams: what the server keeps for clients that wait.

  bench/idle_streams.py [--spillway build/release/spillway] [--streams 2000] [--seconds 15] [-- flags for serve]

The engine has one place, and so many streamed requests for 1,800 tokens each are opened: nearly all wait, with a comment
each second so that nobody hangs up. Prints resident memory without and with them. Exit status 1 when they cost 100 MiB
or more, one of them is refused, cut or hears no comment, or something is still counted once all have hung up.
"""
import argparse
import json
import os
import resource
import selectors
import socket
import sys
import time

from overload import ROOT, Server, resident_mib
from soak import quiet

LIMIT_MIB = 100
WAITING = ["--sequences-max", "1", "--queue-requests-max", "100000", "--queue-tokens-max", "1000000000",
           "--queue-wait-max", "24h", "--connections-max", "100000", "--keep-alive-interval", "1s"]


def open_stream(port):
    body = json.dumps({"model": "tiny-r1", "stream": True, "max_tokens": 1800, "ignore_eos": True,
                       "messages": [{"role": "user", "content": "What is 12 + 30?"}]})
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: idle\r\nContent-Type: application/json\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
    connection.setblocking(False)
    return connection


def listen(connections, seconds):
    """What each connection hears, and which are closed."""
    heard, closed = {c: b"" for c in connections}, 0
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(0.1):
                piece = key.fileobj.recv(65536)
                heard[key.fileobj] += piece
                if not piece:
                    closed += 1
                    selector.unregister(key.fileobj)
    return heard.values(), closed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default=os.path.join(ROOT, "build/release/spillway"))
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("serve", nargs="*", help="flags for spillway serve, after --")
    args = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with Server(args.spillway, ["--kv-cache", "64MiB", "--kv-populate", *WAITING, *args.serve]) as server:
        before = resident_mib(server.process.pid)
        waiting = [open_stream(server.port) for _ in range(args.streams)]
        answers, closed = listen(waiting, args.seconds)
        during = resident_mib(server.process.pid)
        for connection in waiting:
            connection.close()
        values = quiet(server.port)
    commented = sum(answer.count(b": keep-alive") >= 2 for answer in answers)
    answered = sum(b"data:" in answer for answer in answers)
    print(f"{args.streams} streams, {commented} heard at least two comments, {answered} had answers begun, {closed} closed; "
          f"{before:.1f} MiB before, {during:.1f} with them: {during - before:.1f} MiB, {1024 * (during - before) / args.streams:.1f} KiB each")
    missed = []
    if during - before >= LIMIT_MIB:
        missed.append(f"they cost {during - before:.1f} MiB, expected less than {LIMIT_MIB}")
    if commented + answered < args.streams or closed > answered:
        missed.append(f"{args.streams - commented - answered} heard nothing, {closed} were closed")
    if values.get("spillway_engine_requests_running") or values.get("spillway_engine_requests_waiting"):
        missed.append("requests are still counted")
    for miss in missed:
        print(f"missed: {miss}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
