"""The gateway between the official client and upstreams that fail: one terminal outcome for each request, in bounded time
and attempts. The upstreams are bench/gateway/fake_upstream.cc; the fault is the model's name."""
import concurrent.futures
import json
import os
import socket
import subprocess
import time

import httpx
import pytest

from conftest import BINARY, Program, eventually
from gateway_parts import ASK, QUICK, TEXT, Fake, ask, gateway, upstream

REPEATS = int(os.environ.get("SPILLWAY_FAULT_REPEATS", "50"))


@pytest.fixture(scope="module")
def fakes():
    pair = Fake("--name", "primary"), Fake("--name", "fallback", "--healthy")
    yield pair
    for fake in pair:
        fake.stop()


@pytest.fixture(scope="module")
def pair(fakes, tmp_path_factory):
    """A primary that fails as told before a fallback that does not: weights send everything to the primary first."""
    primary, fallback = fakes
    with gateway(tmp_path_factory.mktemp("gateway"), upstream("primary", primary.url, tier="edge", weight=1, **QUICK),
                 upstream("fallback", fallback.url, tier="centre", weight=1, **QUICK),
                 scalars='  policies: ["edge_first"]\n  attempts_max: 6\n') as program:
        yield program


@pytest.fixture(scope="module")
def fresh(fakes, tmp_path_factory):
    """As pair, for requests that do not fail: its breakers stay closed, however slow the machine is."""
    primary, fallback = fakes
    with gateway(tmp_path_factory.mktemp("fresh"), upstream("primary", primary.url, tier="edge"),
                 upstream("fallback", fallback.url, tier="centre"), scalars='  policies: ["edge_first"]\n') as program:
        yield program


# Faults before the first token: the client must not notice.
SILENT = ["ok", "503", "500-once", "429", "429-after-once", "401", "402", "reset", "blank", "silent", "keepalive",
          "error200", "truncated", "garbage", "error-event", "empty", "cut-early", "drip", "404"]
NOT_STREAMED_ONLY = {"drip", "truncated"}
STREAMED_ONLY = {"garbage", "error-event", "empty", "cut-early"}


CASES = [(fault, stream) for fault in SILENT for stream in (False, True)
         if not (fault in NOT_STREAMED_ONLY and stream) and not (fault in STREAMED_ONLY and not stream)]


@pytest.mark.parametrize("fault,stream", CASES)
def test_a_fault_before_the_first_token_is_not_seen(pair, fault, stream):
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(pair, fault, stream), range(REPEATS)))
    assert set(answers) == {(TEXT, "stop")}


@pytest.mark.parametrize("fault", ["cut", "stall", "garbage-late"])
def test_a_stream_that_breaks_is_told_and_never_looks_complete(pair, fault):
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(pair, fault, True), range(REPEATS)))
    assert {finish for _, finish in answers} <= {"error:APIError", "stop"}
    assert all(text == TEXT for text, finish in answers if finish == "stop")


def test_a_stream_without_its_last_word_is_finished(fresh):
    raw = fresh.http().post("/v1/chat/completions", json={"model": "no-done", "messages": ASK, "stream": True}).text
    assert raw.endswith("data: [DONE]\n\n")


def test_a_refused_request_is_not_retried(fresh, fakes):
    before = fakes[1].stats()["total"]
    answer = fresh.http().post("/v1/chat/completions", json={"model": "context", "messages": ASK})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert fakes[1].stats()["total"] == before


def test_a_content_filter_is_passed_on(fresh):
    assert ask(fresh, "filter", True) == (TEXT, "content_filter")


def test_bytes_are_those_of_the_upstream(fresh, fakes):
    body = {"model": "bytes", "messages": ASK, "stream": True}
    direct = httpx.post(fakes[1].url + "/v1/chat/completions", json=body)
    through = fresh.http().post("/v1/chat/completions", json=body)
    same = direct.text.replace('"fallback"', '"primary"')
    assert through.text.replace('"fallback"', '"primary"') == same
    assert through.headers["content-type"].startswith("text/event-stream")


def test_many_streams_at_once_are_whole(fresh):
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: ask(fresh, "ok", True, timeout=60), range(300)))
    assert set(answers) == {(TEXT, "stop")}


def test_a_client_that_leaves_ends_the_upstream_request(tmp_path):
    fake = Fake("--token-us", "50000", "--tokens", "200")
    try:
        with gateway(tmp_path, upstream("only", fake.url)) as program:
            with program.http().stream("POST", "/v1/chat/completions",
                                       json={"model": "ok", "messages": ASK, "stream": True}) as response:
                next(response.iter_bytes())
            deadline = time.monotonic() + 5
            while (fake.stats()["left"], fake.stats()["active"]) != (1, 0) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert (fake.stats()["left"], fake.stats()["active"]) == (1, 0)
    finally:
        fake.stop()


def test_a_refused_connection_and_an_unknown_name_move_on(fakes, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with gateway(tmp_path, upstream("dead", dead, tier="edge", **QUICK),
                 upstream("nowhere", "http://no-such-host.invalid", tier="edge", **QUICK),
                 upstream("plain-as-tls", fakes[1].url.replace("http", "https"), tier="edge", **QUICK),
                 upstream("good", fakes[1].url, tier="centre"), scalars='  policies: ["edge_first"]\n') as program:
        for stream in (False, True):
            for _ in range(10):
                assert ask(program, "ok", stream) == (TEXT, "stop")


def test_keys_are_rotated(fakes, tmp_path):
    with gateway(tmp_path, upstream("one", fakes[0].url, keys='["env:BAD_KEY", "env:GOOD_KEY"]'),
                 environment={"BAD_KEY": "sk-bad", "GOOD_KEY": "sk-good"}) as program:
        for _ in range(10):
            assert ask(program, "badkey", False) == (TEXT, "stop")
        before = fakes[0].stats()["models"]["badkey"]
        assert ask(program, "badkey", True) == (TEXT, "stop")
        assert fakes[0].stats()["models"]["badkey"] == before + 1


def test_a_dead_fleet_is_told_within_the_deadline_after_at_least_one_attempt(fakes, tmp_path):
    with gateway(tmp_path, upstream("one", fakes[0].url, **QUICK)) as program:
        for _ in range(3):
            before = fakes[0].stats()["models"].get("503", 0)
            began = time.monotonic()
            answer = program.http().post("/v1/chat/completions", json={"model": "503", "messages": ASK},
                                         headers={"X-Request-Deadline": "2500"})
            assert answer.status_code == 503
            assert "Retry-After" in answer.headers
            assert time.monotonic() - began < 10
            assert fakes[0].stats()["models"]["503"] > before


def test_the_deadline_goes_on_and_bounds_a_silent_upstream(fakes, tmp_path):
    with gateway(tmp_path, upstream("one", fakes[0].url)) as program:
        answer = program.http().post("/v1/chat/completions", json={"model": "silent", "messages": ASK},
                                     headers={"X-Request-Deadline": "300"})
        assert answer.status_code == 504


def test_random_faults_never_reach_the_client(tmp_path):
    flaky = Fake("--name", "flaky", "--fault-share", "0.2", "--seed", "7")
    steady = Fake("--name", "steady", "--healthy")
    try:
        with gateway(tmp_path, upstream("flaky", flaky.url, tier="edge", **QUICK),
                     upstream("steady", steady.url, tier="centre", **QUICK), scalars='  policies: ["edge_first"]\n') as program:
            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                answers = list(pool.map(lambda _: ask(program, "ok", False), range(300)))
            assert set(answers) == {(TEXT, "stop")}
    finally:
        flaky.stop()
        steady.stop()


def test_usage_is_logged_once_for_who_answered(fakes, tmp_path):
    log = tmp_path / "access.jsonl"
    with gateway(tmp_path, upstream("primary", fakes[0].url, tier="edge", **QUICK),
                 upstream("fallback", fakes[1].url, tier="centre", **QUICK),
                 scalars=f'  policies: ["edge_first"]\n  access_log: "{log}"\n') as program:
        ask(program, "503", True)
        assert program.metric("spillway_gateway_tokens_total", kind="output") == 20
        assert program.metric("spillway_gateway_tokens_total", upstream="fallback", kind="output") == 20
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["upstream"], line["output_tokens"], line["status"]) for line in lines] == [("fallback", 20, 200)]


def test_the_local_model_is_an_upstream_too(tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text("gateway:\n  upstreams:\n    - name: here\n      kind: local\n      models: {r1: tiny-r1}\n")
    program = Program(tmp_path, "--config", str(config))
    try:
        program.wait_ready()
        extra = {"seed": 3, "max_tokens": 24}
        assert ask(program, "r1", True, **extra) == ask(program, "r1", False, **extra)
        assert [model.id for model in program.openai().models.list()] == ["r1"]
        assert program.openai().models.retrieve("r1").created > 1_700_000_000
        http = program.http()
        assert http.head("/v1/models").headers["Content-Length"] == str(len(http.get("/v1/models").content))
        assert (http.head("/v1/models/r1").status_code, http.get("/v1/modelsx").status_code) == (200, 404)
    finally:
        program.process.terminate()
        program.process.wait(20)


def test_a_wrong_configuration_is_refused_with_its_places(tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text("model: {path: none}\ngateway:\n  upstreams:\n    - name: a\n      kind: opnai\n      base_url: http://x\n"
                      "      keys: [\"sk-secret\"]\n    - name: a\n")
    run = subprocess.run([BINARY, "serve", "--config", str(config)], capture_output=True, text=True, timeout=30)
    assert run.returncode != 0
    assert "gateway.yaml:5:7: gateway.upstreams[0].kind: expected one of" in run.stderr
    assert "gateway.yaml:7:7: gateway.upstreams[0].keys: expected env:NAME" in run.stderr
    assert "the name a is given twice" in run.stderr
    assert "sk-secret" not in run.stderr


def test_the_console_shows_upstreams_and_the_hops_of_a_request(fresh):
    text, _ = ask(fresh, "503", False, extra_headers={"X-Request-Id": "hops-1"})
    assert text == TEXT
    told = fresh.http().get("/console/api/requests/hops-1").json()
    hops = [(moment["kind"], moment.get("note", "")) for moment in told["moments"] if moment["kind"] in ("attempt", "failed", "first_byte")]
    assert hops[0] == ("attempt", "primary")
    assert hops[1][0] == "failed" and hops[1][1].startswith("primary")
    assert hops[-2:] == [("attempt", "fallback"), ("first_byte", "fallback")]
    assert eventually(lambda: fresh.http().get("/console/api/state").json()["frame"] is not None)
    frame = fresh.http().get("/console/api/state").json()["frame"]
    assert {upstream["name"] for upstream in frame["upstreams"]} == {"primary", "fallback"}
    assert {upstream["health"] for upstream in frame["upstreams"]} <= {"healthy", "probing", "down"}
