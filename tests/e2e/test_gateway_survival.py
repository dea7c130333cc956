"""The longer list of faults, first part: whatever upstreams, networks and stores do, each request has one terminal outcome in
bounded time and attempts, and the gateway lives on. The second part is test_gateway_pressure.py."""
import concurrent.futures
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from conftest import eventually
from gateway_parts import ASK, QUICK, TEXT, ask, at_once, events, gateway, upstream

BODY = {"model": "ok", "messages": ASK}


def test_a_flapping_upstream_gets_probes_only_and_is_used_again(fleet, tmp_path):
    flaky, steady = fleet("--name", "flaky"), fleet("--name", "steady", "--healthy")
    quick = {**QUICK, "breaker": "{open: 300ms, open_max: 600ms, slow_start: 300ms}"}
    with gateway(tmp_path, upstream("flaky", flaky.url, tier="edge", **quick), upstream("steady", steady.url, tier="centre", **QUICK),
                 scalars='  policies: ["edge_first"]\n') as program:
        for _ in range(2):
            before = flaky.stats()["total"]
            answers = [ask(program, "503", False) for _ in range(60)]
            assert set(answers) == {(TEXT, "stop")}
            assert flaky.stats()["total"] - before < 20  # failures until it opened, then probes
            assert eventually(lambda: ask(program, "ok", False) == (TEXT, "stop") and flaky.stats()["models"].get("ok", 0) > 5)
            flaky.stats()


def test_a_stream_that_drips_is_given_up(fleet, tmp_path):
    slow, good = fleet("--token-us", "300000", "--tokens", "100"), fleet("--healthy")
    with gateway(tmp_path, upstream("slow", slow.url, tier="edge", token_timeout="1s", tokens_per_s_min=20, continuation_safe="true"),
                 upstream("good", good.url, tier="centre", continuation_safe="true"), scalars='  policies: ["edge_first"]\n') as program:
        began = time.monotonic()
        raw = program.http().post("/v1/chat/completions", json={**BODY, "stream": True}).text
        assert time.monotonic() - began < 8
        assert raw.endswith("data: [DONE]\n\n") and not any("error" in event for event in events(raw))
        assert eventually(lambda: slow.stats()["active"] == 0)


def test_all_keys_cooling_waits_instead_of_failing_without_an_attempt(fleet, tmp_path):
    one = fleet()
    with gateway(tmp_path, upstream("one", one.url, keys='["env:A", "env:B"]', **QUICK), environment={"A": "a", "B": "b"}) as program:
        assert ask(program, "429-after-once", False) == (TEXT, "stop")
        answers = at_once(8, lambda _: ask(program, "429-after-once", False, timeout=30))
        assert set(answers) == {(TEXT, "stop")}


def test_a_partition_is_left_behind(fleet, tmp_path):
    lost, good = fleet("--name", "lost"), fleet("--name", "good")
    with gateway(tmp_path, upstream("lost", lost.url, tier="edge", **QUICK), upstream("good", good.url, tier="centre"),
                 scalars='  policies: ["edge_first"]\n') as program:
        assert ask(program, "ok", True) == (TEXT, "stop")
        lost.freeze()
        answers = at_once(30, lambda i: ask(program, "ok", i % 2 == 0))
        assert set(answers) == {(TEXT, "stop")}
        before = time.monotonic()
        assert ask(program, "ok", True) == (TEXT, "stop")
        assert time.monotonic() - before < 0.4  # the breaker is open: nobody waits for it any more
        lost.thaw()


def test_a_recovering_upstream_is_not_run_over(fleet, tmp_path):
    back = fleet("--token-us", "1000")
    quick = {**QUICK, "breaker": "{open: 500ms, open_max: 500ms, slow_start: 2s}"}
    with gateway(tmp_path, upstream("back", back.url, **quick)) as program:
        port = back.port
        back.stop()
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            waiting = [pool.submit(ask, program, "ok", False, timeout=30) for _ in range(40)]
            time.sleep(1.5)
            again = fleet("--port", str(port), "--token-us", "1000")
            answers = [done.result() for done in waiting]
        assert set(answers) == {(TEXT, "stop")}
        assert again.stats()["models"]["ok"] <= 40 + 5  # no request came twice for want of patience


def test_hedges_win_against_a_slow_first_token(fleet, tmp_path):
    one, two = fleet("--token-us", "1000"), fleet("--token-us", "1000")
    with gateway(tmp_path, upstream("one", one.url, tier="edge"), upstream("two", two.url, tier="centre"),
                 scalars='  policies: ["edge_first"]\n') as program:
        for _ in range(60):  # so that the p99 is known
            assert ask(program, "ok", True)[1] == "stop"
        began = time.monotonic()
        one.freeze()
        assert ask(program, "ok", True) == (TEXT, "stop")
        assert time.monotonic() - began < 2
        one.thaw()
        assert program.metric("spillway_gateway_hedges_total", result="won") == 1
        assert program.metric("spillway_gateway_tokens_total", kind="output") == 61 * 20  # billed once
        assert eventually(lambda: one.stats()["active"] == 0)  # the loser was cancelled


def test_a_shadow_gets_copies_and_answers_nobody(fleet, tmp_path):
    main, trial = fleet("--name", "main"), fleet("--name", "trial")
    with gateway(tmp_path, upstream("main", main.url), upstream("trial", trial.url, weight=0),
                 scalars='  policies: ["shadow upstream=trial fraction=1"]\n') as program:
        raw = [program.http().post("/v1/chat/completions", json=BODY).json()["model"] for _ in range(10)]
        assert set(raw) == {"main"}
        assert eventually(lambda: trial.stats()["total"] == 10)
        assert program.metric("spillway_gateway_tokens_total", kind="output") == 200


def start_redis(tmp_path, port):
    process = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
    assert eventually(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
    return process


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
@pytest.mark.parametrize("fail_open", [False, True])
def test_a_quota_store_that_is_down_is_met_as_declared(fleet, tmp_path, fail_open):
    one = fleet()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redis = start_redis(tmp_path, port)
    admin = {"Authorization": "Bearer admin-secret"}
    scalars = f"  admin_key: env:ADMIN\n  tenants: redis://127.0.0.1:{port}\n  tenants_fail_open: {str(fail_open).lower()}\n"
    try:
        with gateway(tmp_path, upstream("one", one.url), scalars=scalars, environment={"ADMIN": "admin-secret"}) as program:
            made = program.http().post("/admin/v1/keys", headers=admin, json={"tenant": "acme", "requests_per_minute": 20}).json()
            program.key = made["key"]
            assert ask(program, "ok", False) == (TEXT, "stop")
            redis.kill()
            redis.wait()
            began = time.monotonic()
            ends = [ask(program, "ok", False)[1] for _ in range(30)]
            assert time.monotonic() - began < 10
            if fail_open:
                assert ends[0] == "stop" and ends.count("stop") <= 20
            else:
                assert set(ends) == {"error:InternalServerError"}
            redis = start_redis(tmp_path, port)
    finally:
        redis.kill()
        redis.wait()


def certificate(folder, name="127.0.0.1", at=()):
    """Signed by itself, of a day; at: ("faketime", "2020-01-01") makes it of that day."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run([*at, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=test", "-addext", f"subjectAltName=IP:{name}", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return key, cert


class TlsEndpoint:
    """A TLS server that reads a request and closes; what matters is whether anybody gets that far."""

    def __init__(self, key, cert):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.requests = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
                with self.context.wrap_socket(connection, server_side=True) as secure:
                    if secure.recv(65536):
                        self.requests += 1
            except ssl.SSLError:
                continue
            except OSError:
                return


# The right one is there to show that it is the certificate that keeps the others from being asked.
@pytest.mark.parametrize("kind", ["right", "self_signed", "other_name", "expired"])
def test_a_certificate_that_is_not_trusted_moves_on_and_sees_no_key(fleet, tmp_path, kind):
    if kind == "expired" and shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    good = fleet()
    key, cert = certificate(tmp_path, "127.0.0.9" if kind == "other_name" else "127.0.0.1", ("faketime", "2020-01-01") if kind == "expired" else ())
    endpoint = TlsEndpoint(key, cert)
    fields = {} if kind == "self_signed" else {"tls_ca_file": str(cert)}
    with gateway(tmp_path, upstream("secure", f"https://127.0.0.1:{endpoint.port}", tier="edge", keys='["env:KEY"]', **fields, **QUICK),
                 upstream("good", good.url, tier="centre"), scalars='  policies: ["edge_first"]\n', environment={"KEY": "sk-x"}) as program:
        for stream in (False, True):
            assert ask(program, "ok", stream) == (TEXT, "stop")  # the secure one reads, and answers nothing
    endpoint.socket.close()
    assert (endpoint.requests > 0) == (kind == "right")


class SlowLink:
    """A network between the gateway and an upstream: each piece takes 300 ms, and every twentieth is lost and sent again a
    second later, as TCP shows 5% of loss to those above it."""

    def __init__(self, port):
        self.port_behind = port
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.pieces = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port_behind))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    def carry(self, a, b):
        try:
            while piece := a.recv(65536):
                self.pieces += 1
                time.sleep(1.3 if self.pieces % 20 == 0 else 0.3)
                b.sendall(piece)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_a_slow_and_lossy_link_is_used_but_not_waited_for(fleet, tmp_path):
    far, good = fleet("--name", "far", "--token-us", "1000"), fleet("--name", "good", "--token-us", "1000")
    link = SlowLink(far.port)
    with gateway(tmp_path, upstream("far", f"http://127.0.0.1:{link.port}", tier="edge", first_token_timeout="1s", token_timeout="5s"),
                 upstream("good", good.url, tier="centre"), scalars='  policies: ["edge_first"]\n') as program:
        assert set(at_once(30, lambda i: ask(program, "ok", i % 2 == 0))) == {(TEXT, "stop")}
        assert far.stats()["total"] > 0
        assert program.metric("spillway_gateway_tokens_total", kind="output") == 30 * 20  # each answer once
    link.socket.close()


def test_a_fleet_over_its_rate_is_told_as_such_and_in_time(fleet, tmp_path):
    one, two = fleet(), fleet()
    with gateway(tmp_path, upstream("one", one.url, **QUICK), upstream("two", two.url, **QUICK)) as program:
        began = time.monotonic()
        answers = at_once(20, lambda _: program.http().post("/v1/chat/completions", json={**BODY, "model": "429"},
                                                             headers={"X-Request-Deadline": "1500"}).status_code)
        assert set(answers) <= {429, 503, 504}
        assert time.monotonic() - began < 6
        assert one.stats()["total"] + two.stats()["total"] <= 20 * 6


def test_an_unknown_model_is_told_at_once(fleet, tmp_path):
    one = fleet()
    with gateway(tmp_path, upstream("one", one.url, models="[ok]")) as program:
        began = time.monotonic()
        answer = program.http().post("/v1/chat/completions", json={**BODY, "model": "nobody"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert time.monotonic() - began < 1
        answer = program.http().post("/v1/chat/completions", json={"messages": BODY["messages"]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (
            400, "model: expected a name, found none")
        assert one.stats()["total"] == 0


def test_a_client_that_waits_long_hears_comments_and_then_its_answer(fleet, tmp_path):
    slow = fleet("--slots", "1", "--work-us", "1200000")
    with gateway(tmp_path, upstream("slow", slow.url), top="server: {keep_alive_interval: 200ms}\n") as program:
        raw = program.http().post("/v1/chat/completions", json={**BODY, "stream": True}).text
        assert raw.startswith(": keep-alive\n\n") and raw.count(": keep-alive") >= 3
        assert "".join(choice["delta"].get("content") or "" for event in events(raw) for choice in event["choices"]) == TEXT
        raw = program.http().post("/v1/chat/completions", json={**BODY, "model": "context", "stream": True}).text
        assert events(raw)[-1]["error"]["code"] == "context_length_exceeded"
