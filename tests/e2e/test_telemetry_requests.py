"""Every request is on the same books, whichever protocol it came by and whoever answered it: spans, timelines, live state,
feedback and metrics of requests over gRPC (Triton's own client, our chat service) and of those that an upstream answered."""
import json
import subprocess

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from conftest import BINARY, free_port
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from gateway_parts import ASK, Fake, gateway, upstream
from test_telemetry import TRACE, collector, until

PARENT = "b7ad6b7169203331"


@pytest.fixture
def traced(start, encoder_folder, tmp_path):
    config = tmp_path / "models.yaml"
    config.write_text(f"models:\n  - name: tiny-r1\n    path: builtin\n  - name: mini\n    path: {encoder_folder}\n"
                      "    batching: {warm_up: 0s}\n")
    with collector() as sink:
        port = free_port()
        program = start("--config", str(config), "--otlp-url", f"http://127.0.0.1:{sink.server_port}/v1/traces", grpc_port=port)
        program.grpc_port, program.sink = port, sink
        yield program


def spans(sink):
    return [span for _, _, body in list(sink.bodies) for scope in json.loads(body)["resourceSpans"][0]["scopeSpans"]
            for span in scope["spans"]]


def attributes(span):
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def span_of(program, request):
    return until(lambda: [span for span in spans(program.sink) if attributes(span)["gen_ai.response.id"] == request])[0]


def test_an_inference_by_tritons_client_is_seen(traced):
    text = triton_grpc.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"hello"], np.object_))
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{traced.grpc_port}") as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "my-infer-1", "x-experiment-arm": "edge"}
        assert client.infer("mini", [text], request_id="triton-7", headers=headers).get_response().id == "triton-7"
    span = span_of(traced, "my-infer-1")
    assert (span["traceId"], span["parentSpanId"], span["name"]) == (TRACE, PARENT, "infer mini")
    told = attributes(span)
    assert (told["rpc.system"], told["rpc.service"], told["rpc.method"]) == ("grpc", "inference.GRPCInferenceService", "ModelInfer")
    assert int(told["rpc.grpc.status_code"]) == 0 and told["gen_ai.response.model"] == "mini" and told["spillway.arm"] == "edge"

    timeline = traced.http().get("/console/api/requests/triton-7").json()
    assert timeline["id"] == "my-infer-1" and timeline["model"] == "mini"
    assert [moment["kind"] for moment in timeline["moments"]] == ["received", "queued", "started", "finished", "answered"]

    said = traced.http().post("/v1/feedback", json={"request_id": "my-infer-1", "conversion": True, "value": 2.5})
    assert said.json()["status"] == "accepted", said.text
    labels = {"route": "/inference.GRPCInferenceService/ModelInfer", "model": "mini", "arm": "edge"}
    assert traced.metric("spillway_business_outcomes_total", outcome="conversion", **labels) == 1
    assert traced.metric("spillway_slo_requests_total", result="good") >= 1
    assert traced.metric("spillway_request_tokens_total", model="mini", kind="input") > 0


def test_a_chat_over_grpc_is_seen(traced):
    with grpc.insecure_channel(f"127.0.0.1:{traced.grpc_port}") as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        request, chunk = (message_factory.GetMessageClass(pool.FindMessageTypeByName(f"spillway.v1.{name}"))
                          for name in ("ChatRequest", "ChatChunk"))
        stream = channel.unary_stream("/spillway.v1.Chat/Stream", request_serializer=request.SerializeToString,
                                      response_deserializer=chunk.FromString)
        call = stream(request(model="tiny-r1", temperature=0, messages=[{"role": "user", "content": "What is 12 + 30?"}]),
                      metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        pieces = list(call)
        request_id = dict(call.initial_metadata())["x-request-id"]
    told = attributes(span_of(traced, request_id))
    assert told["gen_ai.operation.name"] == "chat" and told["rpc.method"] == "Stream"
    assert int(told["gen_ai.usage.output_tokens"]) == pieces[-1].usage.completion_tokens
    assert float(told["gen_ai.server.time_to_first_token"]) > 0
    moments = traced.http().get(f"/console/api/requests/{pieces[0].id}").json()["moments"]
    assert {"queued", "prefill", "tokens", "finished"} <= {moment["kind"] for moment in moments}
    assert traced.metric("spillway_http_time_to_first_token_seconds_count") == 1
    assert traced.metric("spillway_request_finishes_total", model="tiny-r1", reason="stop") == 1
    said = traced.http().post("/v1/feedback", json={"request_id": request_id, "thumbs": "up"})
    assert said.json()["status"] == "accepted", said.text
    assert until(lambda: "/spillway.v1.Chat/Stream" in traced.http().get("/console/api/state").text)


def test_what_an_upstream_answered_is_seen_whole(start, tmp_path):
    there = start()
    with collector() as sink, gateway(tmp_path, upstream("edge-1", there.url + "/v1"),
                                      flags=("--otlp-url", f"http://127.0.0.1:{sink.server_port}/v1/traces")) as program:
        answer = program.http().post("/v1/chat/completions", json={"model": "tiny-r1", "temperature": 0, "messages": [
            {"role": "user", "content": "What is 12 + 30?"}]})
        assert answer.status_code == 200, answer.text
        request = answer.headers["X-Request-Id"]
        told = attributes(until(lambda: [span for span in spans(sink) if span["name"] == "chat tiny-r1"
                                         and attributes(span).get("http.route") == "/v1/chat/completions"])[0])
        assert told["gen_ai.response.finish_reasons"] == {"values": [{"stringValue": "stop"}]}
        usage = answer.json()["usage"]
        assert int(told["gen_ai.usage.output_tokens"]) == usage["completion_tokens"]
        assert int(told["gen_ai.usage.input_tokens"]) == usage["prompt_tokens"]
        assert told["gen_ai.response.model"] == "tiny-r1" and told["spillway.upstream"] == "edge-1" == told["spillway.arm"]
        assert program.metric("spillway_request_finishes_total", model="tiny-r1", reason="stop") == 1
        assert program.metric("spillway_request_tokens_total", model="tiny-r1", kind="output") == usage["completion_tokens"]
        timeline = program.http().get(f"/console/api/requests/{request}").json()
        assert timeline["model"] == "tiny-r1" and "attempt" in [moment["kind"] for moment in timeline["moments"]]
        # Of a stream the first token is known as well, in the metrics under its trace id.
        with program.http().stream("POST", "/v1/chat/completions", json={"model": "tiny-r1", "stream": True, "messages": [
                {"role": "user", "content": "What is 12 + 30?"}]}) as stream:
            stream.read()
        assert until(lambda: program.metric("spillway_http_time_to_first_token_seconds_count") >= 1)


def test_canary_and_centre_are_judged_by_what_came_of_their_answers(tmp_path):
    """Arms: who answered, the canary or the others; the shadow, who answered nobody, is no arm. X-Experiment-Arm names one itself."""
    fakes = [Fake() for _ in range(3)]
    policies = '  policies: ["canary upstream=edge-int8 fraction=0.5", "shadow upstream=shadow fraction=1"]\n'
    try:
        with gateway(tmp_path, *(upstream(name, fake.url, models="[ok]") for name, fake in zip(("centre", "edge-int8", "shadow"), fakes)),
                     scalars=policies, flags=("--telemetry-interval", "0.3s")) as program:
            http, converted, total, arm_of_session = program.http(), {}, {}, {}
            for number in range(60):
                answer = http.post("/v1/chat/completions", json={"model": "ok", "messages": ASK}, headers={"X-Session-Id": f"s{number % 30}"})
                arm = answer.headers["X-Spillway-Upstream"]
                assert arm_of_session.setdefault(number % 30, arm) == arm, "a session stays on its side"
                won = arm == "edge-int8" or number % 2 == 0
                said = http.post("/v1/feedback", json={"request_id": answer.headers["X-Request-Id"], "conversion": won})
                assert said.json()["status"] == "accepted"
                total[arm] = total.get(arm, 0) + 1
                converted[arm] = converted.get(arm, 0) + won
            assert set(total) == {"centre", "edge-int8"} and min(total.values()) >= 10
            named = http.post("/v1/chat/completions", json={"model": "ok", "messages": ASK}, headers={"X-Experiment-Arm": "prompt-b"})
            http.post("/v1/feedback", json={"request_id": named.headers["X-Request-Id"], "conversion": True})
            for arm in total:
                assert program.metric("spillway_business_outcomes_total", arm=arm, outcome="conversion") == converted[arm]
            assert program.metric("spillway_business_outcomes_total", arm="prompt-b", outcome="conversion") == 1
            assert until(lambda: fakes[2].stats()["total"] >= 61)
            assert 'arm="shadow"' not in http.get("/metrics").text

            def shown():  # by arm, in the terminal
                top = subprocess.run([BINARY, "top", "--once", "--url", program.url], capture_output=True, text=True, timeout=20).stdout
                return all(any(arm in line and f"{100 * converted[arm] / total[arm]:.0f}" in line for line in top.splitlines()) for arm in total)

            assert until(shown)
    finally:
        for fake in fakes:
            fake.stop()
