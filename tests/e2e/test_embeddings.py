"""Embeddings, reranking, scores, classes and images over HTTP, as the clients of OpenAI, Cohere, Jina, TEI and TensorFlow
Serving ask for them."""
import base64
import concurrent.futures
import math

import numpy as np
import openai
import pytest
from conftest import GOLDEN, eventually

TEXTS = ["Hello world", "A longer sentence, with more words in it.", "no"]


def unit(vector):
    return np.array(vector) / np.linalg.norm(vector)


def test_openai_client(encoders):
    client = encoders.openai()
    answer = client.embeddings.create(model="mini", input=TEXTS)
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert answer.usage.total_tokens > 10
    plain = client.embeddings.create(model="mini", input=TEXTS, encoding_format="float")
    for packed, listed in zip(answer.data, plain.data):
        np.testing.assert_allclose(packed.embedding, listed.embedding, rtol=1e-6)
    short = client.embeddings.create(model="mini", input=TEXTS[0], dimensions=16).data[0].embedding
    np.testing.assert_allclose(short, unit(answer.data[0].embedding[:16]), rtol=1e-5, atol=1e-7)


def test_as_many_inputs_as_openai_takes(encoders):
    assert len(encoders.openai().embeddings.create(model="mini", input=["a"] * 2048).data) == 2048


def test_a_batch_changes_nobodys_vector(encoders):
    client = encoders.openai()
    together = client.embeddings.create(model="mini", input=TEXTS).data
    for text, vector in zip(TEXTS, together):
        assert client.embeddings.create(model="mini", input=text).data[0].embedding == vector.embedding
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        many = list(pool.map(lambda i: client.embeddings.create(model="mini", input=TEXTS[i % 3]).data[0].embedding, range(96)))
    for i, vector in enumerate(many):
        assert vector == together[i % 3].embedding


def test_token_ids_are_taken_as_they_are(encoders):
    client = encoders.openai()
    text = client.embeddings.create(model="mini", input="Hello world").data[0].embedding
    ids = encoders.tokenizer_ids("Hello world")
    np.testing.assert_allclose(client.embeddings.create(model="mini", input=ids).data[0].embedding, text, rtol=1e-6)
    assert len(client.embeddings.create(model="mini", input=[ids, ids[:-1]]).data) == 2


@pytest.mark.parametrize("body, status, code, message", [
    ({"model": "mini"}, 400, None, "input: expected a string"),
    ({"model": "mini", "input": []}, 400, None, "an empty array"),
    ({"model": "mini", "input": ["a", 1]}, 400, None, "in it"),
    ({"model": "mini", "input": [100000]}, 422, None, "token ids from 0"),
    ({"model": "mini", "input": "a", "dimensions": 4096}, 422, None, "at most the model's"),
    ({"model": "mini", "input": "a", "encoding_format": "hex"}, 422, None, "float, base64"),
    ({"model": "mini", "input": "word " * 200}, 400, "context_length_exceeded", "at most 128 tokens"),
    ({"model": "nobody", "input": "a"}, 404, "model_not_found", "nobody"),
    ({"model": "moods", "input": "a"}, 400, "model_not_suitable", "gives no embeddings"),
])
def test_mistakes_are_told(encoders, body, status, code, message):
    answer = encoders.http().post("/v1/embeddings", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert message in error["message"] and (code is None or error["code"] == code)


def test_giant_strings_are_refused_or_cut_and_hold_nobody_up(encoders):
    giant = "word " * 2_000_000
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(encoders.http().post, "/v1/embeddings", json={"model": "mini", "input": giant})
        for _ in range(20):
            assert encoders.http().get("/health/live").status_code == 200
        assert slow.result().status_code == 400
    assert encoders.http().post("/embed", json={"inputs": giant[:200_000]}).status_code == 200
    too_big = encoders.http().post("/v1/embeddings", json={"model": "mini", "input": giant * 4})
    assert too_big.status_code == 413


def test_rerank(encoders):
    http = encoders.http()
    answer = http.post("/v1/rerank", json={"model": "mini", "query": TEXTS[0], "documents": TEXTS, "top_n": 2,
                                           "return_documents": True}).json()
    assert answer["results"][0] == {"index": 0, "relevance_score": pytest.approx(1, abs=1e-5),
                                    "document": {"text": TEXTS[0]}}
    assert len(answer["results"]) == 2 and answer["usage"]["total_tokens"] > 0
    tei = http.post("/rerank", json={"query": TEXTS[0], "texts": TEXTS, "return_text": True}).json()
    assert tei[0]["index"] == 0 and tei[0]["text"] == TEXTS[0] and len(tei) == 3
    scores = http.post("/score", json={"model": "mini", "text_1": TEXTS[0], "text_2": TEXTS}).json()["data"]
    assert scores[0]["score"] == pytest.approx(1, abs=1e-5)


def test_classify_text(encoders):
    http = encoders.http()
    answer = http.post("/classify", json={"model": "moods", "input": TEXTS, "top_k": 3}).json()["data"]
    assert len(answer) == 3
    for each in answer:
        assert sum(each["probs"]) == pytest.approx(1, abs=1e-5)
        assert each["scores"][0]["label"] == each["label"] in ("negative", "neutral", "positive")
    tei = http.post("/predict", json={"model": "moods", "inputs": [[text] for text in TEXTS]}).json()
    assert [row[0]["label"] for row in tei] == [each["label"] for each in answer]


def test_classify_images_by_json_and_form(encoders):
    http = encoders.http()
    png, jpeg = ((GOLDEN / "images" / name).read_bytes() for name in ("rgb.png", "420.jpg"))
    by_json = http.post("/classify", json={"model": "eyes", "images": [
        "data:image/png;base64," + base64.b64encode(png).decode(), base64.b64encode(jpeg).decode()]}).json()["data"]
    by_form = http.post("/classify", data={"model": "eyes", "top_k": "2"},
                        files=[("file", ("a.png", png, "image/png")), ("file", ("b.jpg", jpeg, "image/jpeg"))]).json()["data"]
    assert [each["probs"] for each in by_json] == [each["probs"] for each in by_form]
    assert len(by_form[0]["scores"]) == 2 and by_form[0]["num_classes"] == 7
    by_tf = http.post("/v1/models/eyes:predict", json={"instances": [{"b64": base64.b64encode(png).decode()}]}).json()
    logits = np.array(by_tf["predictions"][0])
    soft = np.exp(logits - logits.max())
    np.testing.assert_allclose(soft / soft.sum(), by_json[0]["probs"], rtol=1e-4, atol=1e-6)


def test_corrupt_images_are_told(encoders):
    png = (GOLDEN / "images" / "rgb.png").read_bytes()
    for broken in (png[:300], b"not an image", png[:50] + b"\0" * 50 + png[100:]):
        answer = encoders.http().post("/classify", json={"model": "eyes", "image": base64.b64encode(broken).decode()})
        assert answer.status_code == 400 and answer.json()["error"]["message"], answer.text


def test_tei(encoders):
    http = encoders.http()
    vectors = http.post("/embed", json={"inputs": TEXTS}).json()
    assert [math.isclose(np.linalg.norm(each), 1, rel_tol=1e-5) for each in vectors] == [True] * 3
    tokens = http.post("/embed_all", json={"inputs": TEXTS[0]}).json()[0]
    assert len(tokens) == len(encoders.tokenizer_ids(TEXTS[0])) and len(tokens[0]) == 128
    similar = http.post("/similarity", json={"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}}).json()
    np.testing.assert_allclose(similar, np.array(vectors) @ np.array(vectors[0]), atol=1e-5)
    ids = [encoders.tokenizer_ids(text) for text in TEXTS]
    decoded = http.post("/decode", json={"ids": ids}).json()
    assert decoded[0] == "hello world" and decoded[2] == "no" and len(decoded) == 3
    assert http.post("/decode", json={"ids": ids[0], "skip_special_tokens": False}).json() != decoded[:1]
    assert http.post("/decode", json={"ids": ["x"]}).status_code in (400, 422)
    info = http.get("/info").json()
    assert info["max_input_length"] == 128 and "embedding" in info["model_type"]
    error = http.post("/embed", json={"inputs": "word " * 200, "truncate": False})
    assert error.status_code == 413 and error.json()["error_type"] == "Validation"


def test_tensorflow_serving(encoders):
    http = encoders.http()
    answer = http.post("/v1/models/mini:predict", json={"instances": TEXTS}).json()["predictions"]
    openai_vectors = [each.embedding for each in encoders.openai().embeddings.create(model="mini", input=TEXTS).data]
    np.testing.assert_allclose(answer, openai_vectors, rtol=1e-5, atol=1e-7)
    ids = encoders.tokenizer_ids(TEXTS[0])
    padded = {"input_ids": ids + [0, 0], "attention_mask": [1] * len(ids) + [0, 0], "token_type_ids": [0] * (len(ids) + 2)}
    rows = http.post("/v1/models/mini:predict", json={"instances": [padded]}).json()["predictions"]
    columns = http.post("/v1/models/mini:predict", json={"inputs": {name: [row] for name, row in padded.items()}}).json()["outputs"]
    for vector in (rows[0], columns[0]):
        np.testing.assert_allclose(vector, openai_vectors[0], rtol=1e-5, atol=1e-7)
    refused = http.post("/v1/models/mini:predict", json={"instances": [{"input_ids": ids, "mask": [1]}]})
    assert refused.status_code == 400 and "attention_mask" in refused.json()["error"]
    assert http.get("/v1/models/mini").json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert encoders.openai().models.retrieve("mini").id == "mini"


def test_metrics_count_by_route(encoders):
    before = encoders.metric("spillway_http_requests_total", route="/v1/embeddings", status="200")
    encoders.openai().embeddings.create(model="mini", input="a")
    assert encoders.metric("spillway_http_requests_total", route="/v1/embeddings", status="200") == before + 1
    assert eventually(lambda: encoders.health()["requests_in_flight"] == 0)
