"""What else clients call: the responses API, counts of tokens, what is left of a key's limits; connections kept ready."""
import asyncio
import contextlib
import datetime
import json
import threading

import anthropic
import httpx
import openai
import pytest

from gateway_parts import ASK, QUICK, TEXT, Fake, gateway, upstream

ADMIN = {"Authorization": "Bearer admin-secret"}
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}, "strict": False}]


@pytest.fixture(scope="module")
def far():
    one = Fake("--name", "far")
    yield one
    one.stop()


@pytest.fixture(scope="module", params=["openai", "anthropic"])
def before(request, far, tmp_path_factory):
    with gateway(tmp_path_factory.mktemp(request.param), upstream("far", far.url, kind=request.param, keys='["env:FAR_KEY"]', **QUICK),
                 environment={"FAR_KEY": "sk-far"}) as program:
        program.kind = request.param
        yield program


def test_the_official_client_gets_responses(before, far):
    client = before.openai()
    answer = client.responses.create(model="ok", input="hello there", instructions="be brief", max_output_tokens=99)
    assert (answer.output_text, answer.status, answer.model) == (TEXT, "completed", "far")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 20)
    body = far.last()["body"]
    assert body["max_tokens"] == 99
    assert "be brief" in json.dumps(body) and "instructions" not in body
    text, kinds, last = "", [], None
    with client.responses.stream(model="ok", input="hello there") as stream:  # checks the order of events itself
        for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
            last = event
        final = stream.get_final_response()
    assert text == TEXT == final.output_text
    assert (kinds[0], last.type, last.response.usage.output_tokens) == ("response.created", "response.completed", 20)


@pytest.mark.parametrize("stream", [False, True])
def test_responses_call_tools_and_take_their_results(before, far, stream):
    client = before.openai()
    asked = [{"role": "user", "content": "How is the weather?"}]
    if stream:
        with client.responses.stream(model="tools", input=asked, tools=TOOLS) as running:
            for _ in running:
                pass
            answer = running.get_final_response()
    else:
        answer = client.responses.create(model="tools", input=asked, tools=TOOLS)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert calls[0].name == "weather" and json.loads(calls[0].arguments) == {"city": "Paris"}
    history = asked + [item.model_dump(exclude_none=True) for item in answer.output]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    assert client.responses.create(model="ok", input=history, tools=TOOLS).output_text == TEXT
    said = json.dumps(far.last()["body"]["messages"])
    assert "sunny" in said and calls[0].call_id in said


def test_what_responses_cannot_do_here_is_said(before):
    client = before.openai()
    for extra in ({"previous_response_id": "resp_1"}, {"tools": [{"type": "web_search"}]}, {"background": True}):
        with pytest.raises(openai.BadRequestError, match="not supported by this gateway"):
            client.responses.create(model="ok", input="x", **extra)
    http = before.http()
    for odd in ("", "[]", "{", '{"model":"ok"}', '{"model":"ok","input":[3]}', '{"input":"x"}'):
        answer = http.post("/v1/responses", content=odd)
        assert (answer.status_code, "message" in answer.json()["error"]) == (400, True), odd


def test_faults_are_told_in_responses_too(before):
    client = before.openai().with_options(max_retries=0)
    with pytest.raises(openai.APIStatusError) as told:
        client.responses.create(model="503", input="x", timeout=10)
    assert told.value.status_code == 503
    kinds = [event.type for event in client.responses.create(model="cut", input="x", stream=True, timeout=10)]
    assert kinds[0] == "response.created" and kinds[-1] == "error" and "response.completed" not in kinds


def test_tokens_are_counted_by_who_can_and_else_estimated(before, far):
    client = anthropic.Anthropic(api_key="x", base_url=str(before.http().base_url))
    raw = client.messages.with_raw_response.count_tokens(model="ok", messages=[{"role": "user", "content": "hello " * 300}])
    count, estimated = raw.parse().input_tokens, raw.headers.get("x-spillway-estimate")
    if before.kind == "anthropic":
        assert (count, estimated, far.last()["path"]) == (11, None, "/v1/messages/count_tokens")
    else:
        assert 200 < count < 900 and estimated == "true"
    assert before.http().post("/v1/messages/count_tokens", content="{").status_code == 400


def test_an_unknown_model_has_no_count(far, tmp_path):
    with gateway(tmp_path, upstream("far", far.url, models="[ok]")) as program:
        body = {"model": "none", "messages": ASK}
        answer = program.http().post("/v1/messages/count_tokens", json=body)
        assert (answer.status_code, answer.json()["type"]) == (404, "error")
        assert program.http().post("/v1/messages/count_tokens", json={**body, "model": "ok"}).json()["input_tokens"] > 0


def test_clients_read_what_is_left_of_a_keys_limits(far, tmp_path):
    scalars = f"  admin_key: env:ADMIN\n  tenants: {tmp_path}/tenants.db\n"
    with gateway(tmp_path, upstream("far", far.url), scalars=scalars, environment={"ADMIN": "admin-secret"}) as program:
        http = program.http()
        made = http.post("/admin/v1/keys", headers=ADMIN, json={"tenant": "acme", "requests_per_minute": 3, "tokens_per_minute": 5000})
        key = {"Authorization": "Bearer " + made.json()["key"]}
        body = {"model": "ok", "messages": ASK, "max_tokens": 100}
        for stream, left in ((False, "2"), (True, "1")):
            headers = http.post("/v1/chat/completions", headers=key, json={**body, "stream": stream}).headers
            assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("3", left)
            assert headers["x-ratelimit-limit-tokens"] == "5000"
            assert 4000 < int(headers["x-ratelimit-remaining-tokens"]) < 4950
            assert headers["x-ratelimit-reset-requests"].endswith("s")
        # An estimated count costs nothing, and Anthropic's client reads its own names.
        headers = http.post("/v1/messages/count_tokens", headers={"x-api-key": made.json()["key"]}, json=body).headers
        assert headers["anthropic-ratelimit-requests-remaining"] == "0"
        until = datetime.datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"].replace("Z", "+00:00"))
        assert -2 < (until - datetime.datetime.now(datetime.timezone.utc)).total_seconds() <= 60
        assert http.post("/v1/chat/completions", headers=key, json=body).status_code == 200
        refused = http.post("/v1/chat/completions", headers=key, json=body)
        assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (429, "0")
        free = http.post("/admin/v1/keys", headers=ADMIN, json={"tenant": "free"}).json()["key"]
        answer = http.post("/v1/chat/completions", headers={"Authorization": "Bearer " + free}, json=body)
        assert answer.status_code == 200 and not any("ratelimit" in name for name in answer.headers)


class Counting:
    """An upstream that tells which of its connections each request came by; answers when it is told to."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.made, self.used, self.release = 0, [], asyncio.Event()
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    async def serve(self, reader, writer):
        self.made += 1
        mine = self.made
        with contextlib.suppress(Exception):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                self.used.append((mine, self.made))
                await self.release.wait()
                body = json.dumps({"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def test_who_comes_to_a_busy_upstream_finds_a_connection_ready(tmp_path):
    far = Counting()
    with gateway(tmp_path, upstream("far", f"http://127.0.0.1:{far.port}"), top="network: {max_workers: 1}\n") as program:
        async def ask_many():
            async with httpx.AsyncClient(base_url=str(program.http().base_url), timeout=30) as client:
                tasks = []
                for _ in range(12):
                    had = far.made
                    tasks.append(asyncio.create_task(client.post("/v1/chat/completions", json={"model": "m", "messages": ASK})))
                    seen = len(tasks)
                    while len(far.used) < seen:
                        await asyncio.sleep(0.005)
                    await asyncio.sleep(0.05)
                    had = far.made - had
                far.loop.call_soon_threadsafe(far.release.set)
                return await asyncio.gather(*tasks)

        answers = asyncio.run(ask_many())
        assert [answer.status_code for answer in answers] == [200] * 12
        assert far.used[0] == (1, 1) and far.used[6] == (7, 7), "few at once: a connection each, none in store"
        # From the eighth on one more was opened when the request was on its way, and the next request came by it.
        assert [mine for mine, _ in far.used[8:]] == [9, 10, 11, 12]
        assert far.made == 13
        assert program.http().post("/v1/chat/completions", json={"model": "m", "messages": ASK}).status_code == 200
        assert far.made == 13
