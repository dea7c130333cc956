"""Either client before either kind of upstream: requests, answers and streams are told in the other dialect's words."""
import json

import anthropic
import openai
import pytest

from gateway_parts import ASK, QUICK, TEXT, Fake, ask, events, gateway, upstream

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]
ANTHROPIC_TOOLS = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
PIXEL = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def fake():
    one = Fake("--name", "far")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def to_anthropic(fake, tmp_path_factory):
    with gateway(tmp_path_factory.mktemp("a"), upstream("far", fake.url, kind="anthropic", keys='["env:FAR_KEY"]', **QUICK),
                 environment={"FAR_KEY": "sk-ant"}) as program:
        yield program


@pytest.fixture(scope="module")
def to_openai(fake, tmp_path_factory):
    with gateway(tmp_path_factory.mktemp("o"), upstream("far", fake.url, kind="openai", keys='["env:FAR_KEY"]', **QUICK),
                 environment={"FAR_KEY": "sk-open"}) as program:
        yield program


@pytest.mark.parametrize("stream", [False, True])
def test_openai_client_before_anthropic(to_anthropic, fake, stream):
    assert ask(to_anthropic, "ok", stream) == (TEXT, "stop")
    seen = fake.last()
    assert seen["path"] == "/v1/messages"
    assert seen["headers"]["x-api-key"] == "sk-ant"
    assert seen["body"]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello there"}]}]
    assert seen["body"]["max_tokens"] > 0


def test_openai_client_gets_anthropics_tools_reasoning_and_usage(to_anthropic, fake):
    client = to_anthropic.openai()
    answer = client.chat.completions.create(model="tools", messages=ASK, tools=TOOLS)
    message = answer.choices[0].message
    assert message.reasoning_content == "let me see"
    assert message.tool_calls[0].function.name == "weather"
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (7, 20, 3)
    reasoning, arguments, finish, usage = "", "", None, None
    for chunk in client.chat.completions.create(model="tools", messages=ASK, tools=TOOLS, stream=True,
                                                stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                arguments += call.function.arguments or ""
    assert (reasoning, json.loads(arguments), finish, usage.prompt_tokens) == ("let me see", {"city": "Paris"}, "tool_calls", 7)
    # The whole turn goes back: calls, results and a picture.
    client.chat.completions.create(model="ok", tools=TOOLS, messages=[
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "see"},
                                     {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}]},
        {"role": "assistant", "content": None, "tool_calls": [message.tool_calls[0].model_dump()]},
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}])
    body = fake.last()["body"]
    assert body["system"] == "be brief"
    assert body["messages"][0]["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert body["messages"][2]["content"][0]["tool_use_id"] == message.tool_calls[0].id
    assert body["tools"][0]["input_schema"]["properties"] == {"city": {"type": "string"}}


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_client_before_openai(to_openai, fake, stream):
    client = to_openai.anthropic()
    if stream:
        with client.messages.stream(model="ok", max_tokens=64, messages=ASK) as answer:
            message = answer.get_final_message()
    else:
        message = client.messages.create(model="ok", max_tokens=64, messages=ASK)
    assert message.content[0].text == TEXT
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 20
    seen = fake.last()
    assert seen["path"] == "/v1/chat/completions"
    assert seen["headers"]["Authorization"] == "Bearer sk-open"
    assert seen["body"]["messages"] == [{"role": "user", "content": "hello there"}]


def test_anthropic_client_gets_openais_tools_and_reasoning(to_openai, fake):
    client = to_openai.anthropic()
    for stream in (False, True):
        if stream:
            with client.messages.stream(model="tools", max_tokens=64, messages=ASK, tools=ANTHROPIC_TOOLS) as answer:
                message = answer.get_final_message()
        else:
            message = client.messages.create(model="tools", max_tokens=64, messages=ASK, tools=ANTHROPIC_TOOLS)
        kinds = [block.type for block in message.content]
        assert kinds == ["thinking", "tool_use", "tool_use"]
        assert message.content[0].thinking == "let me see"
        assert message.content[1].input == {"city": "Paris"}
        assert message.content[2].name == "time"
        assert message.stop_reason == "tool_use"
        assert message.usage.output_tokens == 20


@pytest.mark.parametrize("fault", ["503", "429", "error200", "blank", "truncated"])
def test_faults_are_told_in_the_clients_dialect(to_openai, fault):
    with pytest.raises(anthropic.APIStatusError) as error:
        to_openai.anthropic().messages.create(model=fault, max_tokens=64, messages=ASK, extra_headers={"X-Request-Deadline": "1500"})
    assert error.value.status_code in (429, 503, 504)
    assert error.value.body["type"] == "error"


def test_a_refusal_is_translated(to_openai):
    with pytest.raises(anthropic.BadRequestError) as error:
        to_openai.anthropic().messages.create(model="context", max_tokens=64, messages=ASK)
    assert error.value.body["error"]["message"] == "too long"


def test_a_translated_stream_that_is_cut_is_told(to_anthropic):
    raw = to_anthropic.http().post("/v1/chat/completions", json={"model": "cut", "messages": ASK, "stream": True}).text
    assert "[DONE]" not in raw
    assert "error" in events(raw)[-1]


def test_what_the_other_dialect_cannot_say_is_refused_at_once(to_anthropic):
    with pytest.raises(openai.BadRequestError) as error:
        to_anthropic.openai().chat.completions.create(model="ok", messages=ASK, n=2)
    assert "n above 1" in error.value.message


def test_embeddings_and_rankings_pass(to_openai, fake):
    answer = to_openai.openai().embeddings.create(model="ok", input="x", encoding_format="float")
    assert answer.data[0].embedding == [0.5, -0.25]
    ranked = to_openai.http().post("/v1/rerank", json={"model": "ok", "query": "q", "documents": ["a", "b"]}).json()
    assert [row["index"] for row in ranked["results"]] == [1, 0]
    assert fake.last()["path"] == "/v1/rerank"


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("first", ["openai", "anthropic"])
def test_a_cut_stream_goes_on_at_anthropics(tmp_path, first, client):
    """What was said ends in a blank, which Anthropic refuses; what it then begins with is no second one."""
    cut, good = Fake("--name", "cut"), Fake("--name", "good", "--tokens", "5")
    try:
        with gateway(tmp_path, upstream("cut", cut.url, tier="edge", kind=first),
                     upstream("good", good.url, tier="centre", kind="anthropic", continuation_safe="true", models="{cut: lead}"),
                     scalars='  policies: ["edge_first"]\n') as program:
            if client == "openai":
                stream = program.openai().chat.completions.create(model="cut", messages=ASK, stream=True)
                chunks = list(stream)
                text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
                assert len({chunk.id for chunk in chunks}) == 1
                assert chunks[-1].choices[0].finish_reason == "stop"
            else:
                with program.anthropic().messages.stream(model="cut", messages=ASK, max_tokens=99) as stream:
                    text = "".join(stream.text_stream)  # the client's accumulation checks blocks and their numbers
                    message = stream.get_final_message()
                assert (message.stop_reason, [block.text for block in message.content]) == ("end_turn", [text])
            said = text[:-len("t0 t1 t2 t3 t4 ")]
            assert said and said == TEXT[:len(said)] and text == said + "t0 t1 t2 t3 t4 "
            assert good.last()["body"]["messages"][-1]["role"] == "assistant"
            last = good.last()["body"]["messages"][-1]["content"]
            assert (last if isinstance(last, str) else last[-1]["text"]) == said.rstrip()
    finally:
        cut.stop()
        good.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_models_that_want_max_completion_tokens_get_it(tmp_path, stream):
    """As OpenAI's reasoning models: max_tokens is refused; the gateway says it in the newer words and remembers that."""
    far = Fake("--name", "far")
    try:
        with gateway(tmp_path, upstream("far", far.url, models="{best: o-series, other: ok}")) as program:
            assert ask(program, "best", stream, max_tokens=99) == (TEXT, "stop")
            body = far.last()["body"]
            assert (body["max_completion_tokens"], "max_tokens" in body, far.stats()["total"]) == (99, False, 2)
            client = program.anthropic()
            message = client.messages.create(model="best", messages=ASK, max_tokens=77)
            assert (message.content[0].text, message.stop_reason) == (TEXT, "end_turn")
            assert (far.last()["body"]["max_completion_tokens"], far.stats()["total"]) == (77, 3)
            assert ask(program, "other", stream, max_tokens=99) == (TEXT, "stop")
            assert far.last()["body"]["max_tokens"] == 99
            assert program.metric("spillway_gateway_attempts_total", upstream="far", result="max_tokens") == 1
    finally:
        far.stop()


def test_the_usage_of_streams_is_known_also_where_only_who_asks_is_told(tmp_path):
    """As OpenAI and vLLM: without asking, a stream would be booked by its bytes. Who did not ask gets no chunk more."""
    far, log = Fake("--name", "far"), tmp_path / "access.jsonl"
    try:
        with gateway(tmp_path, upstream("far", far.url), scalars=f'  access_log: "{log}"\n') as program:
            http, body = program.http(), {"model": "usage", "messages": ASK, "stream": True}
            for more, told in (({}, 0), ({"stream_options": None}, 0), ({"stream_options": {}}, 0),
                               ({"stream_options": {"include_usage": False}}, 0), ({"stream_options": {"include_usage": True}}, 1)):
                chunks = events(http.post("/v1/chat/completions", json={**body, **more}).text)
                assert len([chunk for chunk in chunks if not chunk["choices"]]) == told, more
                assert far.last()["body"]["stream_options"] == {"include_usage": True}, more
                assert sum(chunk.get("usage") is not None for chunk in chunks) == told, more
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [(line["prompt_tokens"], line["output_tokens"]) for line in lines] == [(7, 20)] * 5
        with gateway(tmp_path, upstream("far", far.url, stream_usage="false")) as program:
            program.http().post("/v1/chat/completions", json=body)
            assert "stream_options" not in far.last()["body"]
    finally:
        far.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_too_long_for_one_goes_to_a_longer_context(tmp_path, stream):
    small, alike, large = Fake("--name", "small"), Fake("--name", "alike"), Fake("--name", "large")
    try:
        with gateway(tmp_path, upstream("small", small.url, tier="edge", context_tokens_max=1000, models="{context: context, too-long: context}"),
                     upstream("alike", alike.url, tier="centre", context_tokens_max=1000),
                     upstream("large", large.url, tier="provider", context_tokens_max=100000, models="{context: ok, too-long: context}"),
                     scalars='  policies: ["edge_first"]\n') as program:
            assert ask(program, "context", stream) == (TEXT, "stop")
            assert (small.stats()["total"], alike.stats()["total"], large.stats()["total"]) == (1, 0, 1)
            with pytest.raises(openai.BadRequestError) as told:  # too long for everybody: told as such
                program.openai().chat.completions.create(model="too-long", messages=ASK, stream=stream)
            assert (told.value.code, large.stats()["total"]) == ("context_length_exceeded", 2)
    finally:
        for one in (small, alike, large):
            one.stop()
