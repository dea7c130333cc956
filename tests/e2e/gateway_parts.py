"""What the gateway's tests share: fake upstreams, a gateway before them, and clients."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess

import httpx
import openai

from conftest import BINARY, Program, eventually

FAKE = os.environ.get("SPILLWAY_FAKE", str(pathlib.Path(BINARY).with_name("fake_upstream")))
TEXT = "".join(f"t{i} " for i in range(20))
ASK = [{"role": "user", "content": "hello there"}]
QUICK = {"first_token_timeout": "500ms", "token_timeout": "500ms", "answer_timeout": "1s", "connect_timeout": "500ms"}


class Fake:
    def __init__(self, *flags):
        self.process = subprocess.Popen([FAKE, *flags], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def freeze(self):
        """Packets go in, nothing comes out. The signal alone comes late on a busy machine."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        assert eventually(lambda: all((task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T" for task in tasks.iterdir()))

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stats(self):
        return httpx.get(self.url + "/stats").json()

    def last(self):
        return httpx.get(self.url + "/last").json()

    def stop(self):
        self.process.kill()
        self.process.wait()


def at_once(count, function):
    with concurrent.futures.ThreadPoolExecutor(min(count, 64)) as pool:
        return list(pool.map(function, range(count)))


def upstream(name, url, **fields):
    lines = [f"    - name: {name}", f"      base_url: {url}"]
    lines += [f"      {key}: {value}" for key, value in fields.items()]
    return "\n".join(lines)


def write_config(path, *upstreams, scalars="", top=""):
    path.write_text(top + "model:\n  path: none\ngateway:\n" + scalars + "  upstreams:\n" + "\n".join(upstreams) + "\n")


@contextlib.contextmanager
def gateway(tmp_path, *upstreams, scalars="", top="", environment=None, flags=()):
    config = tmp_path / "gateway.yaml"
    write_config(config, *upstreams, scalars=scalars, top=top)
    program = Program(tmp_path, "--config", str(config), *flags, environment=environment)
    try:
        yield program.wait_ready()
    finally:
        program.process.terminate()
        program.process.wait(20)


def ask(program, model, stream, timeout=20, **extra):
    """What a client sees: the text, and how it ended."""
    client = program.openai()
    try:
        if not stream:
            answer = client.chat.completions.create(model=model, messages=ASK, timeout=timeout, **extra)
            return answer.choices[0].message.content, answer.choices[0].finish_reason
        text, finish = "", None
        for chunk in client.chat.completions.create(model=model, messages=ASK, stream=True, timeout=timeout, **extra):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        return text, finish
    except openai.APIError as error:
        return "", "error:" + type(error).__name__


def events(text):
    """The data of a stream's events."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
