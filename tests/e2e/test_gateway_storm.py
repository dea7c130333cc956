"""The longer list of faults, third part: storms, bombs and a device that is lost. Whatever comes, each request has one terminal
outcome in bounded time and attempts, usage is counted once, memory stays bounded, and the gateway lives on."""
import collections
import gzip
import os
import random
import socket
import socketserver
import threading
import time

import httpx
import pytest

from conftest import eventually
from gateway_parts import ASK, QUICK, TEXT, ask, at_once, gateway, upstream

BODY = {"model": "ok", "messages": ASK}
SOAK_SECONDS = float(os.environ.get("SPILLWAY_SOAK_SECONDS", "6"))


def memory_kib(program, what="VmRSS"):
    return int(next(line for line in open(f"/proc/{program.process.pid}/status") if line.startswith(what + ":")).split()[1])


def outcome(program, model, deadline_ms, stream=False):
    """The status of one request, what it ended with, and how long that took."""
    began = time.monotonic()
    answer = program.http().post("/v1/chat/completions", json={**BODY, "model": model, "stream": stream},
                                           headers={"X-Request-Deadline": str(deadline_ms)})
    return answer, time.monotonic() - began


# With breakers that stay closed the fleet's budget alone stands between the failures and a storm.
@pytest.mark.parametrize("breaker", ["", "{failures_in_row: 1000000, failure_share: 2}"])
@pytest.mark.parametrize("fault", ["500", "503"])
def test_a_fleet_that_fails_gets_no_storm_of_retries(fleet, tmp_path, fault, breaker):
    pair = fleet("--name", "a"), fleet("--name", "b")
    fields = {**QUICK, **({"breaker": breaker} if breaker else {})}
    with gateway(tmp_path, *[upstream(f"u{i}", fake.url, **fields) for i, fake in enumerate(pair)],
                 scalars="  retry_floor: 0\n") as program:
        count = 120
        seen = at_once(count, lambda i: outcome(program, fault, 700))
        assert all(answer.status_code in (429, 502, 503, 504) and answer.headers.get("Retry-After") for answer, _ in seen)
        assert max(took for _, took in seen) < 5
        attempts = sum(fake.stats()["models"].get(fault, 0) for fake in pair)
        assert attempts <= 1.2 * count, attempts
        assert sum(answer.headers.get("X-Spillway-Attempts", "0") != "0" for answer, _ in seen) > 0
        # What is over is over: once they are well they are used again, all the more when it was short.
        assert eventually(lambda: ask(program, "ok", True) == (TEXT, "stop"))
        assert set(at_once(20, lambda i: ask(program, "ok", i % 2 == 0))) == {(TEXT, "stop")}


def test_a_node_that_has_lost_its_device_is_left_before_it_fails(fleet, tmp_path):
    """An XID: the node still answers, and says by /health that it is not well."""
    hurt, good = fleet("--name", "hurt", "--token-us", "20000"), fleet("--name", "good", "--token-us", "1000")
    fields = {"kind": "spillway", "health_interval": "300ms"}
    with gateway(tmp_path, upstream("hurt", hurt.url, tier="edge", **fields), upstream("good", good.url, tier="centre", **fields),
                 scalars='  policies: ["edge_first"]\n') as program:
        who = lambda: outcome(program, "ok", 5000)[0].headers["X-Spillway-Upstream"]
        assert eventually(lambda: who() == "hurt")
        answers, threads = [], []

        def one_is_under_way_there():  # on a busy machine a report may be late, and the node passed over for a moment
            threads.append(threading.Thread(target=lambda: answers.append(ask(program, "ok", True))))
            threads[-1].start()
            time.sleep(0.15)
            return hurt.stats()["active"] > 0

        assert eventually(one_is_under_way_there)
        httpx.get(hurt.url + "/unwell")
        assert eventually(lambda: who() == "good")
        for thread in threads:
            thread.join()
        assert set(answers) == {(TEXT, "stop")}  # what was under way is not cut
        time.sleep(0.4)  # a probe later it is certain
        before = hurt.stats()["total"]
        assert set(at_once(40, lambda i: ask(program, "ok", i % 2 == 0))) == {(TEXT, "stop")}
        assert hurt.stats()["total"] == before
        httpx.get(hurt.url + "/well")
        assert eventually(lambda: who() == "hurt")


def raw(program, head, more=b"", seconds=10):
    """What comes back for bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", program.port), timeout=seconds) as connection:
        try:
            connection.sendall(head)
            while more:
                connection.sendall(more)
        except OSError:
            pass  # cut while it still talked
        try:
            return connection.recv(4096)
        except OSError:
            return b""


POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
HEADER_BOMBS = {
    "one of 64 KiB": POST + b"X-A: " + b"a" * 65536 + b"\r\n\r\n",
    "one of 4 MiB": POST + b"X-A: " + b"a" * (4 << 20) + b"\r\n\r\n",
    "10,000 of them": POST + b"".join(b"X-%d: 1\r\n" % i for i in range(10000)) + b"\r\n",
    "a name of 64 KiB": POST + b"a" * 65536 + b": 1\r\n\r\n",
}


@pytest.mark.parametrize("bomb", HEADER_BOMBS)
def test_header_bombs_are_refused_at_once(fleet, tmp_path, bomb):
    one = fleet()
    with gateway(tmp_path, upstream("one", one.url)) as program:
        assert ask(program, "ok", False) == (TEXT, "stop")
        before = memory_kib(program)
        began = time.monotonic()
        told = at_once(30, lambda _: raw(program, HEADER_BOMBS[bomb]))
        assert time.monotonic() - began < 8
        # A client that is still sending when it is refused may see a reset instead of the answer.
        assert all(b" 431 " in answer or answer == b"" for answer in told) and any(told), collections.Counter(told)
        assert memory_kib(program, "VmHWM") - before < 16_000
        assert one.stats()["total"] == 1
        assert ask(program, "ok", True) == (TEXT, "stop")


def test_headers_without_an_end_are_cut(fleet, tmp_path):
    one = fleet()
    with gateway(tmp_path, upstream("one", one.url)) as program:
        before = memory_kib(program)
        at_once(8, lambda _: raw(program, POST, more=b"X-A: 1\r\n" * 1000))
        assert memory_kib(program, "VmHWM") - before < 16_000
        assert ask(program, "ok", True) == (TEXT, "stop")


ANSWER = (b'{"id":"x","object":"chat.completion","created":1,"model":"bad","choices":[{"index":0,"message":{"role":"assistant",'
          b'"content":"wrong"},"finish_reason":"stop"}]}')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


# First what is sent once, then what is sent until the connection is cut.
RESPONSE_BOMBS = {
    "headers without an end": (HEAD, b"X-A: " + b"a" * 1000 + b"\r\n"),
    "a header line without an end": (HEAD + b"X-A: ", b"a" * 4096),
    "10,000 headers": (HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(10000)) + b"\r\n", b""),
    "1xx without an end": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 20),
    "a body without an end": (CHUNKED + b"\r\n", chunk(b"a" * 16384)),
    "a gzip bomb": (CHUNKED + b"Content-Encoding: gzip\r\n\r\n" + chunk(gzip.compress(b" " * (64 << 20))) + b"0\r\n\r\n", b""),
    "an announced 4 GiB": (HEAD + b"Content-Length: 4294967296\r\n\r\n{", b" " * 16384),
    "an event without an end": (EVENTS + chunk(b"data: "), chunk(b"a" * 16384)),
    "chunk extensions without an end": (CHUNKED + b"\r\n5;", b"a" * 4096),
}


class Bomber(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __init__(self, once, forever):
        self.once, self.forever, self.sent, self.asked = once, forever, 0, 0
        super().__init__(("127.0.0.1", 0), BomberConnection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class BomberConnection(socketserver.BaseRequestHandler):
    def handle(self):
        if not self.request.recv(65536):
            return
        self.server.asked += 1
        try:
            self.request.sendall(self.server.once)
            while self.server.forever:
                self.request.sendall(self.server.forever)
                self.server.sent += len(self.server.forever)
            self.request.recv(65536)
        except OSError:
            pass


@pytest.mark.parametrize("bomb", RESPONSE_BOMBS)
def test_response_bombs_are_cut_and_another_answers(fleet, tmp_path, bomb):
    good, bad = fleet("--name", "good"), Bomber(*RESPONSE_BOMBS[bomb])
    stream = bomb.startswith("an event")
    try:
        with gateway(tmp_path, upstream("bad", bad.url, tier="edge", **QUICK), upstream("good", good.url, tier="centre"),
                     scalars='  policies: ["edge_first"]\n') as program:
            before = memory_kib(program)
            began = time.monotonic()
            answers = at_once(2, lambda _: ask(program, "ok", stream))
            assert set(answers) == {(TEXT, "stop")}
            assert time.monotonic() - began < 8
            assert bad.asked >= 1 and good.stats()["total"] == 2
            # An answer may have 64 MiB; while its buffer grows, one of twice the size lies beside it.
            assert memory_kib(program, "VmHWM") - before < 2 * 200_000
            assert eventually(lambda: memory_kib(program) - before < 30_000)
            # Nobody goes on reading: what was sent stops growing.
            assert eventually(lambda: (bad.sent, time.sleep(0.3))[0] == bad.sent)
    finally:
        bad.shutdown()
        bad.server_close()


def test_more_than_was_announced_is_not_taken_for_the_next_answer(fleet, tmp_path):
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
    bad = Bomber(whole + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + b"bad" * 50000, b"")
    try:
        with gateway(tmp_path, upstream("bad", bad.url, **QUICK)) as program:
            for _ in range(3):
                assert ask(program, "ok", False) == ("wrong", "stop")
            assert bad.asked == 3  # each on a connection of its own
    finally:
        bad.shutdown()
        bad.server_close()


def test_a_while_of_random_faults_leaks_nothing(fleet, tmp_path):
    """SPILLWAY_SOAK_SECONDS makes it longer."""
    fakes = [fleet("--name", f"f{i}", "--fault-share", "0.3", "--seed", str(i)) for i in range(3)]
    fields = {**QUICK, "breaker": "{open: 100ms, open_max: 300ms, slow_start: 100ms}", "continuation_safe": "true"}
    with gateway(tmp_path, *[upstream(f"u{i}", fake.url, **fields) for i, fake in enumerate(fakes)]) as program:
        end = time.monotonic() + SOAK_SECONDS
        seen, marks = collections.Counter(), []

        def client(i):
            chance = random.Random(i)
            with program.http() as http:
                while time.monotonic() < end:
                    stream = chance.random() < 0.5
                    body = {**BODY, "stream": stream}
                    headers = {"X-Request-Deadline": "4000", "X-Priority": chance.choice(["low", "normal", "high"])}
                    with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                        if chance.random() < 0.05:
                            seen["left"] += 1
                            continue
                        text = answer.read().decode()
                    whole = answer.status_code == 200 and (text.endswith("data: [DONE]\n\n") if stream else '"content":"t0 t1' in text)
                    told = answer.status_code in (429, 502, 503, 504) or (stream and '"error"' in text and "[DONE]" not in text)
                    seen["whole" if whole else "told" if told else text[:200]] += 1

        def watch():
            time.sleep(SOAK_SECONDS / 2)
            marks.append((memory_kib(program), len(os.listdir(f"/proc/{program.process.pid}/fd"))))

        watcher = threading.Thread(target=watch)
        watcher.start()
        at_once(8, client)
        watcher.join()
        assert set(seen) <= {"whole", "told", "left"}, seen
        assert seen["whole"] > 20 * max(1, seen["told"]), seen
        assert all(eventually(lambda: fake.stats()["active"] == 0) for fake in fakes)
        memory, descriptors = memory_kib(program), len(os.listdir(f"/proc/{program.process.pid}/fd"))
        assert memory < marks[0][0] * 1.1 + 1500, (marks, memory)
        assert descriptors < marks[0][1] + 30
        answered = sum(program.metric("spillway_gateway_answers_total", upstream=f"u{i}", outcome="ok") for i in range(3))
        tokens = sum(program.metric("spillway_gateway_tokens_total", upstream=f"u{i}", kind="output") for i in range(3))
        assert 0 <= answered - seen["whole"] <= seen["left"] and tokens <= 20 * (answered + seen["left"])
