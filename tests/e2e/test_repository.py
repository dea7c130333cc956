"""Models from stores: an S3-compatible one that checks signatures, and one that cuts off, lies and goes away. Versions
that come and go under load; idle models; a program that is killed while it fetches."""
import concurrent.futures
import functools
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socketserver
import subprocess
import threading
import time
import urllib.parse

import boto3
import httpx
import numpy as np
import pytest
from conftest import BINARY, GOLDEN, Program, eventually, free_port, model_folder, TOKENIZER
from moto.server import ThreadedMotoServer

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
FAST = ("--batching-warm-up", "0s", "--store-part-bytes", "65536", "--threads", "1")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small encoder; and the same with other weights."""
    folder = model_folder(tmp_path_factory.mktemp("stored") / "mini", "bert", tokenizer=TOKENIZER)
    return files_of(folder)


def with_other_weights(files):
    weights = bytearray(files["model.safetensors"])
    begin = 8 + int.from_bytes(weights[:8], "little")
    values = np.frombuffer(weights, np.float32, offset=begin) * np.float32(1.125)
    return {**files, "model.safetensors": bytes(weights[:begin]) + values.tobytes()}


def embed(program, model, text="Hello world"):
    answer = program.http().post("/v1/embeddings", json={"model": model, "input": text})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"])


# ---- an S3-compatible store ----

@pytest.fixture(scope="module")
def s3(files):
    """A store of moto's that holds every request against its signature."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = "http://%s:%d" % server.get_host_and_port()
    make = functools.partial(boto3.client, endpoint_url=url, region_name="us-east-1")
    admin = make("iam", aws_access_key_id="x", aws_secret_access_key="x")
    admin.create_user(UserName="spillway")
    key = admin.create_access_key(UserName="spillway")["AccessKey"]
    policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    admin.put_user_policy(UserName="spillway", PolicyName="all", PolicyDocument=policy)
    client = make("s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    client.create_bucket(Bucket="models")
    for name, data in files.items():
        client.put_object(Bucket="models", Key=f"bert-large-uncased/{name}", Body=data)
    httpx.post(url + "/moto-api/reset-auth", content="0").raise_for_status()  # from here on signatures count
    client.url = url
    client.environment = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                          "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    yield client
    server.stop()


def test_the_copied_configuration_runs_as_it_stands(s3, start, tmp_path):
    program = start("--config", str(EXAMPLES / "bert-large.yaml"), "--store-cache-dir", str(tmp_path / "cache"),
                    environment=s3.environment, grpc_port=free_port())
    assert len(embed(program, "bert-large-uncased")) > 0
    log = program.output()
    lines = [line for line in log.splitlines() if "hardware.gpu_ids" in line]
    assert len(lines) == 1 and "GPUs 0, 1, 2, 3" in lines[0] and "hardware.strict" in lines[0], log
    assert "gRPC on" in log


def test_strict_hardware_refuses_it(s3, tmp_path):
    run = subprocess.run([BINARY, "serve", "--config", str(EXAMPLES / "bert-large.yaml"), "--port", "0", "--strict",
                          "--store-cache-dir", str(tmp_path)], env={**os.environ, **s3.environment},
                         capture_output=True, text=True, timeout=30)
    assert run.returncode != 0
    assert "hardware.gpu_ids asks for GPUs 0, 1, 2, 3" in run.stderr and "hardware.strict forbids" in run.stderr


def test_a_wrong_key_is_one_clear_error(s3, tmp_path):
    run = subprocess.run([BINARY, "serve", "--model", "s3://models/bert-large-uncased", "--port", "0", "--grpc-port", "0",
                          "--store-cache-dir", str(tmp_path)],
                         env={**os.environ, **s3.environment, "AWS_SECRET_ACCESS_KEY": "wrong"},
                         capture_output=True, text=True, timeout=30)
    assert run.returncode != 0
    assert "status 403" in run.stderr and "SignatureDoesNotMatch" in run.stderr, run.stderr
    assert "wrong" not in run.stderr.replace("what is wrong", "")


def test_reload_under_load_drops_nothing(s3, start, tmp_path, files):
    for name, data in files.items():
        s3.put_object(Bucket="models", Key=f"live/{name}", Body=data)
    program = start("--model", "s3://models/live", "--store-cache-dir", str(tmp_path / "cache"), *FAST,
                    environment=s3.environment)
    before = embed(program, "live")
    stop, statuses = threading.Event(), []

    def ask():
        with program.http() as client:
            while not stop.is_set():
                statuses.append(client.post("/v1/embeddings", json={"model": "live", "input": "Hello world"}).status_code)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    changed = with_other_weights(files)
    for round_ in range(3):
        data = (changed if round_ % 2 == 0 else files)["model.safetensors"]
        s3.put_object(Bucket="models", Key="live/model.safetensors", Body=data)
        loaded = program.http().post("/v2/repository/models/live/load", json={})
        assert loaded.status_code == 200, loaded.text
    count = len(statuses)
    assert eventually(lambda: len(statuses) > count + 20)
    stop.set()
    for client in clients:
        client.join()
    assert set(statuses) == {200} and len(statuses) > 50
    assert not np.allclose(embed(program, "live"), before, atol=1e-3)


def test_sighup_takes_over_the_list_of_models_and_drops_nothing(start, tmp_path, files):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for file, data in (with_other_weights(files) if name == "c" else files).items():
            (tmp_path / name / file).write_bytes(data)
    config = tmp_path / "spillway.yaml"

    def write(*models):
        items = "".join(f"  - {{name: {name}, path: {tmp_path / name}, precision: {precision}}}\n"
                        for name, precision in models)
        config.write_text("models:\n" + items)

    write(("a", "fp32"), ("b", "fp32"))
    program = start("--config", str(config), *FAST)
    before = embed(program, "a")
    stop, statuses = threading.Event(), []

    def ask():
        with program.http() as client:
            while not stop.is_set():
                statuses.append(client.post("/v1/embeddings", json={"model": "a", "input": "Hello world"}).status_code)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    assert eventually(lambda: len(statuses) > 10)  # requests are under way when the models change
    write(("a", "int8"), ("c", "fp32"))
    program.process.send_signal(signal.SIGHUP)

    def listed():
        return {model["id"] for model in program.http().get("/v1/models").json()["data"]}
    assert eventually(lambda: listed() == {"a", "c"}), program.output()
    assert not np.allclose(embed(program, "c"), before, atol=1e-3)
    gone = program.http().post("/v1/embeddings", json={"model": "b", "input": "x"})
    assert gone.status_code == 404, gone.text
    assert eventually(lambda: not np.array_equal(embed(program, "a"), before))  # int8 now
    after = embed(program, "a")
    assert after @ before > 0.9992 * np.linalg.norm(after) * np.linalg.norm(before)
    config.write_text("models:\n  - {name: a, path: /no/such/folder}\n")
    program.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: "/no/such/folder" in program.output())
    assert listed() == {"a", "c"}
    assert eventually(lambda: len(statuses) > 50)  # however fast the models changed
    stop.set()
    for client in clients:
        client.join()
    assert set(statuses) == {200} and len(statuses) > 50


# ---- a store that misbehaves ----

class Store:
    """As little of S3 as the program asks for, with what can go wrong."""

    def __init__(self):
        self.files = {}
        self.cuts = 0          # so many answers end in the middle
        self.lie = False       # ranges come with other bytes
        self.gone = False      # every request fails
        self.slow_s = 0.0      # before each range
        self.bytes_given = 0
        self.lock = threading.Lock()
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if store.gone:
                    return self.answer(503)
                path, _, query = self.path.partition("?")
                if "list-type=2" in query:
                    prefix = urllib.parse.parse_qs(query).get("prefix", [""])[0]
                    entries = "".join(
                        f"<Contents><Key>{prefix}{name}</Key><Size>{len(data)}</Size>"
                        f"<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag></Contents>"
                        for name, data in store.files.items())
                    return self.answer(200, f"<ListBucketResult>{entries}</ListBucketResult>".encode())
                data = store.files.get(path.rsplit("/", 1)[1])
                if data is None:
                    return self.answer(404)
                time.sleep(store.slow_s)
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                first, last = (int(match[1]), min(int(match[2]), len(data) - 1)) if match else (0, len(data) - 1)
                body = data[first:last + 1]
                if store.lie:
                    body = bytes([body[0] ^ 1]) + body[1:]
                with store.lock:
                    cut, store.cuts = store.cuts > 0, max(0, store.cuts - 1)
                    store.bytes_given += len(body)
                if cut:
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body[:len(body) // 2])
                    self.close_connection = True
                    return None
                return self.answer(206 if match else 200, body, Content_Range=f"bytes {first}-{last}/{len(data)}",
                                   ETag=f'"{hashlib.md5(data).hexdigest()}"')

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def store(files):
    store = Store()
    store.files = dict(files)
    yield store
    store.server.shutdown()
    store.server.server_close()


def flags(store, cache):
    return ("--model", "s3://models/mini", "--store-endpoint", store.url, "--store-cache-dir", str(cache), *FAST)


def test_a_store_that_cuts_off_is_asked_again(store, start, tmp_path):
    store.cuts = 4
    program = start(*flags(store, tmp_path / "cache"))
    assert len(embed(program, "mini")) > 0
    assert store.cuts == 0 and "asking again" in program.output()


def test_a_store_that_lies_leaves_the_old_version(store, start, tmp_path, files):
    program = start(*flags(store, tmp_path / "cache"))
    before = embed(program, "mini")
    store.files = with_other_weights(files)
    store.lie = True
    refused = program.http().post("/v2/repository/models/mini/load", json={})
    assert refused.status_code >= 400 and "checksum" in refused.text, refused.text
    np.testing.assert_array_equal(embed(program, "mini"), before)
    index = program.http().post("/v2/repository/index", json={}).json()
    assert [(model["name"], model["state"]) for model in index] == [("mini", "READY")]
    store.lie, store.gone = False, True
    assert program.http().post("/v2/repository/models/mini/load", json={}).status_code >= 400
    np.testing.assert_array_equal(embed(program, "mini"), before)
    store.gone = False
    assert program.http().post("/v2/repository/models/mini/load", json={}).status_code == 200
    assert not np.allclose(embed(program, "mini"), before, atol=1e-3)


def test_killed_while_fetching_it_goes_on_where_it_was(store, start, tmp_path, files):
    store.slow_s = 0.1
    cache = tmp_path / "cache"
    folder = tmp_path / "killed"
    folder.mkdir()
    program = Program(folder, *flags(store, cache), "--store-connections", "2")
    whole = sum(map(len, files.values()))
    assert eventually(lambda: store.bytes_given > whole / 2)
    program.process.send_signal(signal.SIGKILL)
    program.process.wait()
    assert not [path for path in cache.rglob("model.safetensors") if path.parent.suffix != ".partial"]
    time.sleep(0.3)  # answers that were under way
    given, store.slow_s = store.bytes_given, 0
    again = start(*flags(store, cache))
    assert len(embed(again, "mini")) > 0
    assert store.bytes_given - given < 0.6 * whole
    stored = next(path for path in cache.rglob("model.safetensors"))
    assert stored.read_bytes() == files["model.safetensors"]


def test_a_store_that_is_gone_at_the_start_is_stood_in_for_by_the_copy(store, start, tmp_path):
    cache = tmp_path / "cache"
    first = start(*flags(store, cache))
    before = embed(first, "mini")
    first.stop()
    store.gone = True
    second = start(*flags(store, cache), "--store-attempts", "2")
    np.testing.assert_array_equal(embed(second, "mini"), before)
    assert "is served" in second.output() and "503" in second.output()


def test_a_folder_of_an_http_server(start, tmp_path, files):
    root = tmp_path / "www"
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=root)  # gives no ranges
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = start("--model", f"http://127.0.0.1:{server.server_address[1]}/", "--model-name", "mini",
                    "--store-cache-dir", str(tmp_path / "cache"), *FAST)
    assert len(embed(program, "mini")) > 0
    server.shutdown()


# ---- versions and idle models in folders ----

def test_numbered_versions_and_idle_models(start, tmp_path, files):
    root = tmp_path / "numbered"
    for version, content in ((1, files), (2, with_other_weights(files))):
        (root / str(version)).mkdir(parents=True)
        for name, data in content.items():
            (root / str(version) / name).write_bytes(data)
    config = tmp_path / "spillway.yaml"
    config.write_text(f"models:\n  - name: mini\n    path: {root}\n    versions: all\n"
                      "repository: {idle_timeout: 700ms}\nbatching: {warm_up: 0s}\n")
    program = start("--config", str(config), "--threads", "1")
    newest = embed(program, "mini")
    index = lambda: program.http().post("/v2/repository/index", json={}).json()
    assert [(model["version"], model["state"]) for model in index()] == [("1", "READY"), ("2", "READY")]
    assert eventually(lambda: {model["state"] for model in index()} == {"UNAVAILABLE"})
    assert {model["reason"] for model in index()} == {"idle"}
    np.testing.assert_array_equal(embed(program, "mini"), newest)
    assert program.metric("spillway_model_evictions_total", model="mini") >= 2
    shutil.rmtree(root / "2")
    assert program.http().post("/v2/repository/models/mini/load", json={}).status_code == 200
    assert not np.allclose(embed(program, "mini"), newest, atol=1e-3)
    assert [(model["version"], model["state"]) for model in index()] == [("1", "READY")]


# ---- language models that share the memory ----

CHAT_TOKENIZER = (EXAMPLES.parent / "models" / "tiny-r1" / "tokenizer.json").read_text()


def language_folder(folder, name):
    """A small random language model that reads and writes the embedded model's tokens."""
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return model_folder(folder, name, tokenizer=CHAT_TOKENIZER,
                        tokenizer_config=json.dumps({"chat_template": template}))


def say(program, model, **options):
    body = {"model": model, "prompt": [7, 42, 101], "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    return program.http().post("/v1/completions", json={**body, **options})


def test_language_models_take_turns_in_the_memory(start, tmp_path):
    folders = {name: language_folder(tmp_path / name, name) for name in ("llama", "qwen2")}
    bytes_each = {name: (folder / "model.safetensors").stat().st_size for name, folder in folders.items()}
    cache = 1 << 20
    memory = max(bytes_each.values()) + cache + min(bytes_each.values()) // 2  # of one, and not of both
    config = tmp_path / "spillway.yaml"
    config.write_text("models:\n" + "".join(f"  - name: {name}\n    path: {folder}\n    load: {str(name == 'llama').lower()}\n"
                                             for name, folder in folders.items())
                      + f"engine: {{kv_cache: {cache}}}\nrepository: {{memory: {memory}, wait_max: 20s}}\n")
    program = start("--config", str(config), "--threads", "1", "--precision", "fp32")
    index = lambda: {each["name"]: (each["state"], each.get("reason", ""))
                     for each in program.http().post("/v2/repository/index", json={}).json()}
    def text(answer):
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]
    first = text(say(program, "llama"))
    assert program.http().post("/v2/repository/models/qwen2/load", json={}).status_code == 200
    assert index()["llama"][0] == "UNAVAILABLE" and "make room for qwen2" in index()["llama"][1]
    other = text(say(program, "qwen2"))
    assert {model["id"] for model in program.http().get("/v1/models").json()["data"]} == {"llama", "qwen2"}
    assert program.metric("spillway_models_ready", model="llama") == 0

    # Back it comes, and says what it said.
    assert text(say(program, "llama")) == first
    assert index()["qwen2"][0] == "UNAVAILABLE" and index()["llama"][0] == "READY"
    assert text(say(program, "qwen2")) == other
    assert program.metric("spillway_model_returns_total") == 2

    # Both at once: each waits for the other's answers to end, and all are answered.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: (i, say(program, ("llama", "qwen2")[i % 2], max_tokens=16)), range(24)))
    for i, answer in answers:
        assert text(answer).startswith((first, other)[i % 2]), (i, answer.text)
    assert program.metric("spillway_model_loads_total", outcome="failed") == 0


def test_an_idle_language_model_is_evicted_and_brought_back(start, tmp_path):
    folder = language_folder(tmp_path / "llama", "llama")
    config = tmp_path / "spillway.yaml"
    config.write_text(f"models:\n  - name: tiny\n    path: builtin\n  - name: llama\n    path: {folder}\n"
                      "repository: {idle_timeout: 400ms}\n")
    program = start("--config", str(config), "--threads", "1")
    states = lambda: {each["name"]: (each["state"], each.get("reason"))
                      for each in program.http().post("/v2/repository/index", json={}).json()}
    said = say(program, "tiny").json()["choices"][0]["text"]
    assert eventually(lambda: set(states().values()) == {("UNAVAILABLE", "idle")})
    assert program.http().get("/health/ready").status_code == 200
    refused = program.http().post("/v1/completions", headers={"X-Request-Deadline": "0"},
                                  json={"model": "tiny", "prompt": "x", "max_tokens": 1})
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1, refused.text
    assert say(program, "tiny").json()["choices"][0]["text"] == said
    # An answer that takes longer than the idle time is finished.
    answer = say(program, "llama", max_tokens=400)
    assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 400
    assert program.metric("spillway_model_evictions_total") >= 2
