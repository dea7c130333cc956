"""Starts the real program on a free port and gives the tests the official clients for it."""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import anthropic
import httpx
import openai
import pytest

BINARY = os.environ.get("SPILLWAY_BINARY", "build/release/spillway")
MODEL = "tiny-r1"
START_S = 60


class Program:
    """One run of `spillway serve`."""

    def __init__(self, folder, *flags, tls=False, key=None, environment=None, port=0):
        self.port_file = pathlib.Path(folder) / "port"
        self.port_file.unlink(missing_ok=True)
        self.log = open(pathlib.Path(folder) / "log.txt", "w+")
        self.scheme = "https" if tls else "http"
        self.key = key
        command = [BINARY, "serve", "--port", str(port), "--port-file", str(self.port_file), "--metrics-port", "0", *flags]
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
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}], **options)


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
