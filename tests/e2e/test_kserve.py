"""KServe's inference protocol and Triton's extensions over HTTP and gRPC, with the client people use; gRPC's health and
reflection; chat over gRPC."""
import gzip
import json
import pathlib
import struct
import threading

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import GOLDEN, eventually, free_port, golden_tensors
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


@pytest.fixture(scope="module")
def http(encoders):
    with triton_http.InferenceServerClient(encoders.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def rpc(encoders):
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{encoders.grpc_port}") as client:
        yield client


def inputs(module, **arrays):
    out = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        out.append(tensor)
    return out


def padded(rows, width):
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, :len(row)] = row
        mask[i, :len(row)] = 1
    return ids, mask


@pytest.mark.parametrize("binary", [False, True])
def test_embeddings_are_the_references(encoders, http, rpc, binary):
    """The goldens of the model, through the protocols: padded ids with a mask in, hidden states out."""
    golden = golden_tensors("bert")
    ids, mask, types, expected = (golden[name] for name in
                                  ("input_ids", "attention_mask", "token_type_ids", "last_hidden_state"))
    arrays = dict(input_ids=ids.astype(np.int64), attention_mask=mask.astype(np.int64),
                  token_type_ids=types.astype(np.int64))
    asked = [triton_http.InferRequestedOutput("last_hidden_state", binary_data=binary)]
    request = inputs(triton_http, **arrays)
    if not binary:
        for tensor, array in zip(request, arrays.values()):
            tensor.set_data_from_numpy(array, binary_data=False)
    answer = http.infer("mini", request, outputs=asked, request_id="7")
    assert answer.get_response()["id"] == "7"
    valid = mask.astype(bool)
    np.testing.assert_allclose(answer.as_numpy("last_hidden_state")[valid], expected[valid], atol=2e-4, rtol=1e-3)
    answer = rpc.infer("mini", inputs(triton_grpc, **arrays), outputs=[triton_grpc.InferRequestedOutput("last_hidden_state")])
    np.testing.assert_allclose(answer.as_numpy("last_hidden_state")[valid], expected[valid], atol=2e-4, rtol=1e-3)
    assert not answer.as_numpy("last_hidden_state")[~valid].any()


def test_vision_logits_are_the_references(http, rpc):
    golden = golden_tensors("resnet")
    pixels, expected = golden["pixel_values"], golden["logits"]
    for module, client in ((triton_http, http), (triton_grpc, rpc)):
        answer = client.infer("eyes", inputs(module, pixel_values=pixels))
        np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=2e-4, rtol=1e-3)
    asked = [triton_grpc.InferRequestedOutput("logits", class_count=2)]
    best = rpc.infer("eyes", inputs(triton_grpc, pixel_values=pixels[:1]), outputs=asked).as_numpy("logits")
    value, index, label = best[0][0].decode().split(":")
    assert int(index) == expected[0].argmax() and label == f"class {index}"


def test_text_goes_in_as_bytes(encoders, http, rpc):
    texts = np.array([["Hello world"], ["no"]], dtype=object)
    over_http = http.infer("mini", inputs(triton_http, text=texts)).as_numpy("embedding")
    over_grpc = rpc.infer("mini", inputs(triton_grpc, text=texts)).as_numpy("embedding")
    openai = encoders.http().post("/v1/embeddings", json={"model": "mini", "input": ["Hello world", "no"]}).json()
    np.testing.assert_array_equal(over_http, over_grpc)
    np.testing.assert_allclose(over_http, [each["embedding"] for each in openai["data"]], rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_packed_bodies_are_taken(http, rpc, algorithm):
    text = inputs(triton_http, text=np.array([["the same text"]], dtype=object))
    plain = http.infer("mini", text).as_numpy("embedding")
    packed = http.infer("mini", text, request_compression_algorithm=algorithm,
                        response_compression_algorithm=algorithm).as_numpy("embedding")
    assert np.array_equal(plain, packed)
    over_rpc = rpc.infer("mini", inputs(triton_grpc, text=np.array([["the same text"]], dtype=object)),
                         compression_algorithm=algorithm).as_numpy("embedding")
    assert np.array_equal(plain, over_rpc)


def test_a_packed_body_may_not_be_longer_than_others(encoders):
    """64 MiB of blanks in 64 KiB: refused by the bound for bodies, and the server goes on."""
    bomb = gzip.compress(b" " * (64 << 20))
    answer = encoders.http().post("/embed", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413 and "expected at most" in answer.json()["error"]
    assert encoders.http().get("/ping").status_code == 200


def test_metadata_configuration_statistics(http, rpc):
    for client in (http, rpc):
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("mini")
        assert not client.is_model_ready("mini", "99")
    meta = http.get_model_metadata("mini")
    assert meta["inputs"][0] == {"name": "text", "datatype": "BYTES", "shape": [-1, 1]}
    assert rpc.get_model_metadata("mini", as_json=True)["outputs"][0]["shape"] == ["-1", "128"]
    assert "model_repository" in rpc.get_server_metadata().extensions
    assert http.get_model_config("mini")["max_batch_size"] == rpc.get_model_config("mini").config.max_batch_size > 0
    before = rpc.get_inference_statistics("mini").model_stats[0].inference_count
    rpc.infer("mini", inputs(triton_grpc, text=np.array([["a"]], dtype=object)))
    assert rpc.get_inference_statistics("mini").model_stats[0].inference_count == before + 1
    stats = http.get_inference_statistics("mini")["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] >= 1 and stats["batch_stats"]
    assert len(http.get_inference_statistics()["model_stats"]) == 3


def test_models_are_unloaded_and_loaded_again(encoders, http, rpc):
    names = {each["name"] for each in http.get_model_repository_index()}
    assert {"mini", "moods", "eyes"} <= names
    rpc.unload_model("moods")
    assert not http.is_model_ready("moods")
    with pytest.raises(InferenceServerException, match="not ready"):
        rpc.infer("moods", inputs(triton_grpc, text=np.array([["a"]], dtype=object)))
    index = {each.name: each for each in rpc.get_model_repository_index().models}
    assert index["moods"].state == "UNAVAILABLE" and index["mini"].state == "READY"
    http.load_model("moods")
    assert rpc.is_model_ready("moods")
    assert rpc.infer("moods", inputs(triton_grpc, text=np.array([["a"]], dtype=object))).as_numpy("logits").shape == (1, 3)
    with pytest.raises(InferenceServerException, match="nobody"):
        rpc.load_model("nobody")


def test_a_stream_answers_every_request(rpc):
    done, answers = threading.Event(), {}

    def take(result, error):
        answers[result.get_response().id if result else str(error)] = error
        if len(answers) == 201:
            done.set()

    rpc.start_stream(take)
    for i in range(200):
        rpc.async_stream_infer("mini", inputs(triton_grpc, text=np.array([[f"{i} times"]], dtype=object)), request_id=str(i))
    rpc.async_stream_infer("nobody", inputs(triton_grpc, text=np.array([["a"]], dtype=object)), request_id="bad")
    assert done.wait(60)
    rpc.stop_stream()
    assert sum(error is None for error in answers.values()) == 200


@pytest.mark.parametrize("break_it, message", [
    (lambda r: r.inputs[0].shape.__setitem__(0, 3), "expected 3 elements"),
    (lambda r: r.inputs[0].shape.__setitem__(0, -1), "expected a shape"),
    (lambda r: r.raw_input_contents.__setitem__(0, b"\xff\xff\xff\xff" + b"a"), "bytes in element 0"),
    (lambda r: r.raw_input_contents.append(b""), "for each of 1 inputs"),
    (lambda r: setattr(r.inputs[0], "datatype", "TEXT"), "datatype"),
    (lambda r: setattr(r.inputs[0], "name", "words"), "unexpected inference input"),
    (lambda r: r.outputs.add(name="logits"), "unexpected inference output"),
    (lambda r: r.raw_input_contents.__setitem__(0, struct.pack("<I", 400000) + b"word " * 80000), "at most 128 tokens"),
])
def test_malformed_tensors_are_told(encoders, break_it, message):
    request = service_pb2.ModelInferRequest(model_name="mini")
    request.inputs.add(name="text", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", 1) + b"a")
    break_it(request)
    with grpc.insecure_channel(f"127.0.0.1:{encoders.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                   request_serializer=service_pb2.ModelInferRequest.SerializeToString,
                                   response_deserializer=service_pb2.ModelInferResponse.FromString)
        with pytest.raises(grpc.RpcError) as failure:
            call(request)
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in failure.value.details()


def test_corrupt_images_are_told(encoders, http):
    png = (GOLDEN / "images" / "rgb.png").read_bytes()
    for broken in (png[:200], b"GIF89a", b"", png[:60] + bytes(40) + png[100:]):
        with pytest.raises(InferenceServerException, match="image"):
            http.infer("eyes", inputs(triton_http, image=np.array([[broken]], dtype=object)))
    logits = http.infer("eyes", inputs(triton_http, image=np.array([[png], [png]], dtype=object))).as_numpy("logits")
    assert logits.shape == (2, 7)


def test_a_timeout_that_cannot_be_kept_is_told(http, rpc):
    for module, client in ((triton_http, http), (triton_grpc, rpc)):
        with pytest.raises(InferenceServerException, match="deadline") as failure:
            client.infer("mini", inputs(module, text=np.array([["a"]], dtype=object)), timeout=1)
        assert failure.value.status() in ("504", "429", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.RESOURCE_EXHAUSTED")


def test_keys_and_tls_off_the_same_configuration(start, encoder_folder):
    port = free_port()
    program = start("--model", str(encoder_folder), "--api-keys", "sesame", key="sesame", grpc_port=port)
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="API key"):
            client.get_server_metadata()
        assert client.get_server_metadata(headers={"authorization": "Bearer sesame"}).name == "spillway"
    with triton_http.InferenceServerClient(program.url.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException):
            client.get_model_metadata("encoder")


def test_health_and_reflection(encoders):
    with grpc.insecure_channel(f"127.0.0.1:{encoders.grpc_port}") as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"inference.GRPCInferenceService", "spillway.v1.Chat", "grpc.health.v1.Health"} <= set(services)


def fields(descriptor):
    return {field.name: (field.number, field.type) for field in descriptor.fields}


def test_the_wire_contract_is_tritons(encoders):
    """Every message of ours has the numbers and types that tritonclient's has, every method its name and messages."""
    with grpc.insecure_channel(f"127.0.0.1:{encoders.grpc_port}") as channel:
        ours = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        file = ours.FindServiceByName("inference.GRPCInferenceService").file
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}

    def compare(mine, reference):
        for name, field in fields(mine).items():
            assert fields(reference)[name] == field, f"{mine.full_name}.{name}"
        for name, nested in mine.nested_types_by_name.items():
            compare(nested, reference.nested_types_by_name[name])

    for name, message in file.message_types_by_name.items():
        compare(message, theirs[name])
    for enum in file.enum_types_by_name.values():
        for value in enum.values:
            assert model_config_pb2.DataType.Value(value.name) == value.number
    for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        mine = file.services_by_name["GRPCInferenceService"].methods_by_name[method.name]
        assert (mine.input_type.name, mine.output_type.name) == (method.input_type.name, method.output_type.name)


def test_chat_over_grpc(start):
    port = free_port()
    program = start(grpc_port=port)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        request = message_factory.GetMessageClass(pool.FindMessageTypeByName("spillway.v1.ChatRequest"))
        response = message_factory.GetMessageClass(pool.FindMessageTypeByName("spillway.v1.ChatResponse"))
        chunk = message_factory.GetMessageClass(pool.FindMessageTypeByName("spillway.v1.ChatChunk"))
        ask = request(model="tiny-r1", temperature=0, messages=[{"role": "user", "content": "What is 12 + 30?"}])
        whole = channel.unary_unary("/spillway.v1.Chat/Complete", request_serializer=request.SerializeToString,
                                    response_deserializer=response.FromString)(ask)
        pieces = list(channel.unary_stream("/spillway.v1.Chat/Stream", request_serializer=request.SerializeToString,
                                           response_deserializer=chunk.FromString)(ask))
    over_http = program.openai().chat.completions.create(
        model="tiny-r1", temperature=0, messages=[{"role": "user", "content": "What is 12 + 30?"}])
    assert whole.choices[0].message.content == over_http.choices[0].message.content
    assert "".join(piece.content for piece in pieces) == whole.choices[0].message.content
    assert pieces[-1].usage.completion_tokens == over_http.usage.completion_tokens == whole.usage.completion_tokens
    assert len(pieces) > 3
