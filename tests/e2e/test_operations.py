"""The server's life: refusals, deadlines, keys, TLS, drain, kill and restart, bad bytes."""
import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import grpc
import openai
import pytest
from conftest import BINARY, MODEL, ask, eventually, free_port

LONG = dict(temperature=1, max_tokens=1500, extra_body={"ignore_eos": True})


def test_health_and_metrics(server):
    http = server.http()
    assert http.get("/health/live").status_code == 200
    assert http.get("/health/ready").status_code == 200
    health = http.get("/health").json()
    assert health["status"] == "ready" and health["models"][0]["id"] == MODEL
    text = http.get("/metrics").text
    for name in ["spillway_http_requests_total", "spillway_http_time_to_first_token_seconds_bucket"]:
        assert name in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


def test_request_id(server):
    answer = server.http().get("/health", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["X-Request-Id"] == "abc-1"


def test_full_queue_is_429_at_once(start):
    server = start("--sequences-max", "1", "--queue-requests-max", "1")

    def attempt(_):
        try:
            return ask(server.openai(), "Tell me something", **LONG)
        except openai.RateLimitError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(8)))
    refused = [result for result in results if isinstance(result, openai.RateLimitError)]
    assert 1 <= len(refused) <= 7
    for error in refused:
        assert int(error.response.headers["Retry-After"]) >= 1
        assert error.code == "queue_requests" and "wait" in str(error)
    assert server.metric("spillway_http_refusals_total", reason="queue_requests") == len(refused)
    assert server.health()["models"][0]["waiting"] == 0


def test_keep_alive_while_queued(start):
    server = start("--sequences-max", "1", "--keep-alive-interval", "50ms")
    running = ask(server.openai(), "Tell me something", stream=True, **LONG)
    next(iter(running))
    body = {"model": MODEL, "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    with server.http().stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": keep-alive"
        running.close()
        rest = list(lines)
    assert rest[-2] == "data: [DONE]" or rest[-1] == "data: [DONE]"


def test_deadline(server):
    body = {"model": MODEL, "max_tokens": 1500, "ignore_eos": True, "temperature": 1,
            "messages": [{"role": "user", "content": "Tell me something"}]}
    answer = server.http().post("/v1/chat/completions", json=body, headers={"X-Request-Deadline": "60"})
    assert answer.status_code in (504, 429)
    bad = server.http().post("/v1/chat/completions", json=body, headers={"X-Request-Deadline": "soon"})
    assert bad.status_code == 400


def test_keys_over_tls(start, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
                    "-subj", "/CN=localhost"], check=True, capture_output=True)
    server = start("--tls-cert", str(certificate), "--tls-key", str(key), tls=True, key="sk-right-key-0001",
                   environment={"SPILLWAY_SERVER_API_KEYS": "sk-right-key-0001"})
    assert ask(server.openai()).choices[0].message.content.strip() == "12 + 30 = 42"
    assert server.anthropic().messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.AuthenticationError) as error:
        ask(server.openai().with_options(api_key="sk-wrong-key-0002"))
    assert "Authentication Fails" in str(error.value)
    assert "wrong-key" not in str(error.value)


def test_grpc_over_tls(start, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    port = free_port()
    start("--tls-cert", str(certificate), "--tls-key", str(key), tls=True, key="sk-right-key-0001", grpc_port=port,
          environment={"SPILLWAY_SERVER_API_KEYS": "sk-right-key-0001"})
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
        alive = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        ready, index = b"", "/inference.GRPCInferenceService/RepositoryIndex"
        assert alive(ready, timeout=10, metadata=[("authorization", "Bearer sk-right-key-0001")]) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(index)(b"", timeout=10, metadata=[("authorization", "Bearer sk-wrong-key-0002")])
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(f"localhost:{port}") as channel, pytest.raises(grpc.RpcError) as plain:
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)
    assert plain.value.code() == grpc.StatusCode.UNAVAILABLE


def test_sigterm_truncates_nothing(start):
    server = start()
    client = server.openai()
    streams = [ask(client, "Tell me something", stream=True, temperature=1, seed=k, max_tokens=400,
                   extra_body={"ignore_eos": True}) for k in range(4)]
    ends = []

    def read(stream):
        reason = tokens = None
        for chunk in stream:
            if chunk.choices:
                reason = chunk.choices[0].finish_reason or reason
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        ends.append((reason, tokens))

    for stream in streams:
        next(iter(stream))
    threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert ends == [("length", 400)] * 4
    assert server.process.wait(30) == 0


def test_kill_and_restart_on_the_same_port(start):
    server = start()
    port = server.port
    stream = ask(server.openai(), "Tell me something", stream=True, **LONG)
    next(iter(stream))
    os.kill(server.process.pid, signal.SIGKILL)
    with pytest.raises(Exception):
        for _ in stream:
            pass
    server.process.wait()
    again = start(port=port)
    assert again.port == port
    assert ask(again.openai()).choices[0].message.content.strip() == "12 + 30 = 42"


def test_garbage_to_the_port(server):
    payloads = [b"\x00" * 64, b"\x16\x03\x01\x02\x00\x01\x00", os.urandom(4096), b"GET / HTTP/9.9\r\n\r\n",
                b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"GET /" + b"a" * 100000,
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"]
    for payload in payloads:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            try:
                connection.sendall(payload)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except ConnectionError:
                continue
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 505"), payload[:40]
    assert server.http().get("/health/ready").status_code == 200


def test_health_answers_while_busy(server):
    client = server.openai()
    streams = [ask(client, "Tell me something", stream=True, seed=k, **LONG) for k in range(8)]
    for stream in streams:
        next(iter(stream))
    http = server.http()
    http.get("/health")
    slowest = 0.0
    for _ in range(50):
        began = time.monotonic()
        assert http.get("/health/live").status_code == 200
        slowest = max(slowest, time.monotonic() - began)
    for stream in streams:
        stream.close()
    assert slowest < 1.0
    assert eventually(lambda: server.health()["models"][0]["running"] == 0)


def test_a_missing_grpc_module_is_named_where_grpc_was_asked_for(tmp_path):
    alone = tmp_path / "spillway"
    shutil.copy(BINARY, alone)
    asked = subprocess.run([alone, "serve", "--port", "0", "--metrics-port", "0", "--grpc-port", str(free_port())], capture_output=True, text=True, timeout=60)
    assert asked.returncode != 0
    assert f"expected {tmp_path}/spillway_grpc.so or " in asked.stderr and "found neither" in asked.stderr
    foreign = tmp_path / "spillway_grpc.so"
    foreign.write_bytes(b"no library")
    asked = subprocess.run([alone, "serve", "--port", "0", "--metrics-port", "0", "--grpc-port", str(free_port())], capture_output=True, text=True, timeout=60)
    assert asked.returncode != 0 and str(foreign) in asked.stderr


def test_command_lines_that_are_not_quite_right(tmp_path):
    wrong = subprocess.run([BINARY, "serv"], capture_output=True, text=True, timeout=30)
    assert wrong.returncode == 2 and 'unknown command "serv"; expected one of serve, chat' in wrong.stderr
    config = tmp_path / "good.yaml"
    config.write_text("network:\n  port: 1234\n")
    for arguments in ([str(config)], ["--config", str(config)]):
        assert subprocess.run([BINARY, "config", "check", *arguments], capture_output=True, timeout=30).returncode == 0
