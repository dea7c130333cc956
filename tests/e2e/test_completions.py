"""Text completions, tokenize, errors and limits."""
import gzip
import json

import openai
import pytest
from conftest import MODEL, ask

PROMPT = "<｜begin▁of▁sentence｜><｜User｜>What is 12 + 30?<｜Assistant｜><think>\n"


def test_completion(client):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=200)
    assert answer.choices[0].text.strip().endswith("</think>\n12 + 30 = 42") or \
        answer.choices[0].text.strip().endswith("12 + 30 = 42")
    assert answer.choices[0].finish_reason == "stop"


def test_echo_with_logprobs_scores_the_prompt(client, server):
    text = PROMPT + "2+0+0=2"
    ids = server.http().post("/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False}).json()["tokens"]
    choice = client.completions.create(model=MODEL, prompt=ids, max_tokens=1, temperature=0, echo=True, logprobs=2).choices[0]
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == len(ids) + 1
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    # What the model was trained to write is near certain, and so is the greedy choice here.
    assert min(logprobs.token_logprobs[-6:]) > -0.5
    assert logprobs.text_offset == sorted(logprobs.text_offset)
    # Scoring alone gives the same numbers.
    alone = client.completions.create(model=MODEL, prompt=ids, max_tokens=0, echo=True, logprobs=2).choices[0].logprobs
    assert alone.token_logprobs[1:] == pytest.approx(logprobs.token_logprobs[1:len(ids)], abs=1e-4)


def test_scored_as_evaluation_harnesses_do(client, server):
    """lm-evaluation-harness sends ids, asks for one token more, and cuts context and that token off by counting: the end
    token that the model gives here has to be told of as well."""
    http = server.http()

    def ids(text):
        return http.post("/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False}).json()["tokens"]

    whole = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=200).choices[0].text
    context, continuation = ids(PROMPT), ids(PROMPT + whole)[len(ids(PROMPT)):]
    choice = client.completions.create(model=MODEL, prompt=context + continuation, max_tokens=1, temperature=0, echo=True,
                                       logprobs=1, seed=1234).choices[0]
    logprobs = choice.logprobs
    cut = slice(len(context), -1)
    assert choice.finish_reason == "stop" and len(logprobs.token_logprobs[cut]) == len(continuation)
    assert all(token == max(top, key=top.get) for token, top in zip(logprobs.tokens[cut], logprobs.top_logprobs[cut]))
    assert sum(logprobs.token_logprobs[cut]) > -1
    # Every token is among its own best, however unlikely.
    assert all(token in top for token, top in zip(logprobs.tokens[1:], logprobs.top_logprobs[1:]))


def test_batch_of_prompts(client):
    answer = client.completions.create(model=MODEL, prompt=[PROMPT, "x"], temperature=0, max_tokens=200)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.strip().endswith("12 + 30 = 42")


def test_stream(client):
    whole = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=50)
    text = "".join(chunk.choices[0].text for chunk in
                   client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=50, stream=True) if chunk.choices)
    assert text == whole.choices[0].text


@pytest.mark.parametrize("text", ["Hello, world", "33加3等于多少?", "a<｜User｜>b", "  spaces\n\n", "é🙂"])
def test_tokenize_round_trip(server, text):
    http = server.http()
    tokens = http.post("/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert http.post("/detokenize", json={"model": MODEL, "tokens": tokens["tokens"]}).json()["prompt"] == text


def test_fill_in_the_middle_is_refused(client):
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt="a", suffix="b")


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert error.value.code == "model_not_found"


def test_context_length(client):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, "1 " * 3000)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("options", [{"temperature": 9}, {"top_p": 0}, {"n": 0}, {"top_logprobs": 5}, {"logprobs": True, "top_logprobs": 50}])
def test_bad_values(client, options):
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, **options)
    assert error.value.status_code in (400, 422)


def test_packed_bodies(server):
    body = gzip.compress(json.dumps({"model": MODEL, "prompt": "1, 2", "max_tokens": 2, "temperature": 0}).encode())
    packed = server.http().post("/v1/completions", content=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert packed.status_code == 200 and packed.json()["usage"]["completion_tokens"] > 0, packed.text
    unknown = server.http().post("/v1/completions", content=body, headers={"Content-Encoding": "br"})
    assert unknown.status_code == 400 and "found br" in unknown.json()["error"]["message"]


def test_malformed_bodies(server):
    http = server.http()
    for body in [b"", b"{", b"[]", b'"x"', b'{"model":"tiny-r1"}', b'{"model":"tiny-r1","messages":[]}',
                 b'{"model":"tiny-r1","messages":[{"role":"user","content":"\xff"}]}', b"[" * 5000]:
        answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), body
        assert answer.json()["error"]["message"]
    assert http.get("/v1/nothing").status_code == 404
    assert http.get("/v1/chat/completions").status_code == 405
