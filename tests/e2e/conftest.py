"""Starts the real program on a free port and gives the tests the official clients for it."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import anthropic
import httpx
import numpy as np
import openai
import pytest

BINARY = os.environ.get("SPILLWAY_BINARY", "build/release/spillway")
MODEL = "tiny-r1"
START_S = 60


class Program:
    """One run of `spillway serve`."""

    def __init__(self, folder, *flags, tls=False, key=None, environment=None, port=0, grpc_port=0):
        self.port_file = pathlib.Path(folder) / "port"
        self.port_file.unlink(missing_ok=True)
        self.log = open(pathlib.Path(folder) / "log.txt", "w+")
        self.scheme = "https" if tls else "http"
        self.key = key
        command = [BINARY, "serve", "--port", str(port), "--port-file", str(self.port_file), "--metrics-port", "0",
                   "--grpc-port", str(grpc_port), *flags]
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log,
                                        env={**os.environ, **(environment or {})})

    def wait_ready(self):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")
            if self.port_file.exists():
                with contextlib.suppress(httpx.HTTPError):
                    if self.http().get("/health/ready").status_code == 200:
                        return self
            time.sleep(0.02)
        raise AssertionError(f"not ready in {START_S} s:\n{self.output()}")

    @property
    def port(self):
        return int(self.port_file.read_text())

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def http(self, **options):
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False, **options)

    def openai(self, **options):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=self.key or "none", max_retries=0, timeout=60,
                             http_client=openai.DefaultHttpxClient(verify=False), **options)

    def anthropic(self, **options):
        return anthropic.Anthropic(base_url=self.url, api_key=self.key or "none", max_retries=0, timeout=60,
                                   http_client=anthropic.DefaultHttpxClient(verify=False), **options)

    def output(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()

    def health(self):
        return self.http().get("/health").json()

    def metric(self, name, **labels):
        """Sum of a metric's series that have these labels."""
        total = 0.0
        for line in self.http().get("/metrics").text.splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("server")).wait_ready()
    yield program
    program.stop()


@pytest.fixture
def start(tmp_path):
    """Starts further servers with flags of their own."""
    programs = []

    def launch(*flags, **options):
        folder = tmp_path / str(len(programs))
        folder.mkdir()
        programs.append(Program(folder, *flags, **options))
        return programs[-1].wait_ready()

    yield launch
    for program in programs:
        program.stop()


@pytest.fixture(scope="session")
def client(server):
    return server.openai()


def ask(client, question="What is 12 + 30?", **options):
    options.setdefault("temperature", 0)
    options.setdefault("messages", [{"role": "user", "content": question}])
    return client.chat.completions.create(model=MODEL, **options)


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def golden_tensors(model):
    """The reference's inputs and outputs of a model of tests/golden, by name."""
    data = (GOLDEN / model / "expected.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    types = {"F32": np.float32, "I32": np.int32, "I64": np.int64}
    out = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        out[name] = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return out


def model_folder(folder, name, **files):
    """A checkpoint folder of a golden model, with further files."""
    folder.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name / file, folder / file)
    for file, content in files.items():
        (folder / f"{file}.json").write_text(content)
    return folder


TOKENIZER = (GOLDEN / "tokenizer_bert" / "tokenizer.json").read_text()


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "encoder", "bert", tokenizer=TOKENIZER)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """One program with an encoder, a classifier and a vision model, on HTTP and gRPC."""
    root = tmp_path_factory.mktemp("encoders")
    sizes = {"size": {"height": 64, "width": 48}, "do_resize": True, "resample": 3}
    folders = {"mini": model_folder(root / "mini", "bert", tokenizer=TOKENIZER),
               "moods": model_folder(root / "moods", "bert_classifier", tokenizer=TOKENIZER),
               "eyes": model_folder(root / "eyes", "resnet", preprocessor_config=json.dumps(sizes))}
    config = root / "spillway.yaml"
    config.write_text("models:\n" + "".join(
        f"  - name: {name}\n    path: {folder}\n    batching: {{warm_up: 0s}}\n" for name, folder in folders.items()))
    port = free_port()
    program = Program(root, "--config", str(config), grpc_port=port)
    program.grpc_port = port
    program.tokenizer_ids = lambda text: program.http().post(
        "/tokenize", json={"model": "mini", "prompt": text}).json()["tokens"]
    program.wait_ready()
    yield program
    program.stop()


@pytest.fixture
def fleet():
    """Starts fake upstreams."""
    from gateway_parts import Fake  # which needs this module

    started = []

    def start(*flags):
        started.append(Fake(*flags))
        return started[-1]

    yield start
    for fake in started:
        fake.process.send_signal(signal.SIGCONT)
        fake.stop()
