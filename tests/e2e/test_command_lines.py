"""What the commands say of files and flags that are not quite right: config check, doctor, eval, bench load."""
import json
import subprocess

import pytest
from conftest import BINARY


def run(*arguments, **options):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **options)


WRONG_FILES = {
    "models:\n- path: builtin\n  nme: x\n": "3:3: models[0].nme",
    "model: {path: none}\ngateway:\n  upstreams:\n    - name: a\n      base_url: https://x.example\n      kee: 1\n": "6:7: gateway.upstreams[0].kee: unknown key",
    "model: {path: none}\ngateway:\n  upstreams:\n    - name: a\n": "4:7: gateway.upstreams[0]: expected a base_url, found none",
    "tls:\n  cert: /some.pem\n": "tls.cert and tls.key: expected both or neither",
    "network:\n  port: eighty\n": '2:3: network.port: expected an integer from 0 to 65535, found the string "eighty"',
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_config_check_refuses_what_serve_would(tmp_path, text):
    file = tmp_path / "file.yaml"
    file.write_text(text)
    checked = run("config", "check", file)
    assert checked.returncode == 1 and WRONG_FILES[text] in checked.stderr, checked
    served = run("serve", "--config", file, "--metrics-port", 0, "--grpc-port", 0)
    assert served.returncode == 1, served


def test_config_check_of_good_lists(tmp_path):
    file = tmp_path / "good.yaml"
    file.write_text("models:\n- path: s3://models/bert-large-uncased\n  engine: {kv_cache: 1GiB}\n- path: builtin\n")
    assert run("config", "check", file).stdout.strip().endswith("good")


@pytest.mark.parametrize("flags, said", [
    (["--precision", "int4"], "model.precision: expected auto, fp32, bf16 or int8 on a CPU; found int4"),
    (["--model", "/no/such/folder"], 'found "/no/such/folder", which does not exist'),
    (["--model", "FOLDER"], "architecture 'FooForCausalLM' is not supported; expected one of DeepseekV3ForCausalLM"),
    (["--config", "FILE"], "models[0].nme"),
])
def test_doctor_finds_what_serve_would_refuse(tmp_path, flags, said):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["FooForCausalLM"]}))
    (tmp_path / "file.yaml").write_text("models:\n- path: builtin\n  nme: x\n")
    places = {"FOLDER": tmp_path, "FILE": tmp_path / "file.yaml"}
    examined = run("doctor", "--device", "cpu", "--port", 0, "--grpc-port", 0, *(places.get(flag, flag) for flag in flags))
    assert examined.returncode == 1 and said in examined.stdout, examined


@pytest.mark.parametrize("flags", [
    ["--model", "s3://models/bert-large-uncased"], ["--model", "none"], ["--model", "builtin", "--precision", "int8"],
    ["--model", "models/digits-resnet"]])
def test_doctor_knows_every_kind_of_model(flags):
    examined = run("doctor", "--device", "cpu", "--port", 0, "--grpc-port", 0, *flags)
    assert examined.returncode == 0 and "0 problems" in examined.stdout, examined


@pytest.mark.parametrize("command", [
    ["eval", "--limit", -3], ["eval", "--limit", 0], ["eval", "--min-accuracy", 101], ["eval", "--temperature", 3],
    ["bench", "load", "--rate", -3], ["bench", "load", "--rate", 0], ["bench", "load", "--clients", 0],
    ["bench", "load", "--duration", -1], ["bench", "load", "--rate", 3, "--clients", 2]])
def test_numbers_out_of_range_are_refused(command):
    refused = run(*command)
    assert refused.returncode == 2 and str(command[-2]) in refused.stderr + refused.stdout, refused


def test_a_load_that_nobody_answers_is_a_failure(server):
    done = run("bench", "load", "--url", server.url + "/v1", "--model-name", "no-such-model", "--requests", 20, "--duration", 5)
    assert done.returncode == 1
    assert "20 x status 404" in done.stdout and "none of the 20 requests was answered" in done.stderr
    assert run("bench", "load", "--url", server.url + "/v1", "--requests", 5, "--duration", 5).returncode == 0
