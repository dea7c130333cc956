"""Running a gateway: reload, tenants, cache, discovery, traces, and streams resumed between two Spillways."""
import concurrent.futures
import http.server
import json
import signal
import socket
import threading
import time

import httpx
import openai
import pytest

from conftest import Program, eventually
from gateway_parts import ASK, QUICK, TEXT, Fake, ask, events, gateway, upstream, write_config

ADMIN = {"Authorization": "Bearer admin-secret"}


@pytest.fixture
def fakes():
    pair = Fake("--name", "one"), Fake("--name", "two")
    yield pair
    for fake in pair:
        fake.stop()


def test_a_reload_moves_new_requests_and_leaves_those_under_way(fakes, tmp_path):
    slow = Fake("--name", "slow", "--token-us", "50000", "--tokens", "40")
    try:
        with gateway(tmp_path, upstream("here", slow.url), scalars="  admin_key: env:ADMIN\n",
                     environment={"ADMIN": "admin-secret"}) as program:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                under_way = [pool.submit(ask, program, "ok", True) for _ in range(4)]
                assert eventually(lambda: slow.stats()["active"] == 4)
                write_config(tmp_path / "gateway.yaml", upstream("there", fakes[0].url),
                             scalars='  admin_key: env:ADMIN\n  aliases: ["nick=ok"]\n')
                program.process.send_signal(signal.SIGHUP)
                assert eventually(lambda: "there" in program.http().get("/admin/v1/gateway", headers=ADMIN).text)
                assert ask(program, "nick", False) == (TEXT, "stop")
                assert fakes[0].stats()["models"] == {"ok": 1}
                assert all(done.result() == ("".join(f"t{i} " for i in range(40)), "stop") for done in under_way)
    finally:
        slow.stop()


def test_who_waits_for_an_upstream_goes_over_to_the_new_configuration(fakes, tmp_path):
    """As when all pods of a service are replaced: the addresses known before never answer again."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with gateway(tmp_path, upstream("old", nowhere), upstream("older", nowhere), scalars="  admin_key: env:ADMIN\n",
                     environment={"ADMIN": "admin-secret"}) as program, concurrent.futures.ThreadPoolExecutor(8) as pool:
            state = lambda: [one["health"] for one in program.http().get("/admin/v1/gateway", headers=ADMIN).json()["upstreams"]]
            while state() != ["down", "down"]:  # who comes later has tried nobody
                program.http().post("/v1/chat/completions", json={"model": "ok", "messages": ASK}, headers={"X-Request-Deadline": "200"})
            waiting = [pool.submit(ask, program, "ok", i % 2 == 0) for i in range(8)]
            assert eventually(lambda: program.metric("spillway_gateway_queued") > 0)
            write_config(tmp_path / "gateway.yaml", upstream("new", fakes[0].url), scalars="  admin_key: env:ADMIN\n")
            assert program.http().post("/admin/v1/reload", headers=ADMIN).status_code == 200
            assert [one.result(8) for one in waiting] == [(TEXT, "stop")] * 8
            assert program.metric("spillway_gateway_queued") == 0


def test_a_bad_configuration_is_refused_whole_and_names_its_place(fakes, tmp_path):
    with gateway(tmp_path, upstream("here", fakes[0].url), scalars="  admin_key: env:ADMIN\n",
                 environment={"ADMIN": "admin-secret"}) as program:
        for bad in (upstream("there", fakes[1].url, kind="nonsense"), upstream("there", fakes[1].url, keys='["env:NOT_SET"]')):
            write_config(tmp_path / "gateway.yaml", bad, scalars="  admin_key: env:ADMIN\n")
            answer = program.http().post("/admin/v1/reload", headers=ADMIN)
            assert answer.status_code == 422
            assert "gateway.upstreams[0]" in answer.json()["error"]["message"]
            assert ask(program, "ok", False) == (TEXT, "stop")
        write_config(tmp_path / "gateway.yaml", upstream("there", fakes[1].url, models="[r1]"), scalars='  aliases: ["best=r2"]\n  admin_key: env:ADMIN\n')
        answer = program.http().post("/admin/v1/reload", headers=ADMIN)
        assert (answer.status_code, 'gateway.aliases: best: expected a model of the upstreams\' (r1), found "r2"' in answer.text.replace('\\"', '"')) == (422, True)
        write_config(tmp_path / "gateway.yaml", upstream("there", fakes[1].url), scalars='  policies: ["no_such"]\n')
        assert program.http().post("/admin/v1/reload", headers=ADMIN).status_code == 422
        assert program.http().post("/admin/v1/reload").status_code == 401
        (tmp_path / "gateway.yaml").unlink()
        (tmp_path / "gateway.yaml").mkdir()  # as a mount that is not there
        answer = program.http().post("/admin/v1/reload", headers=ADMIN)
        assert (answer.status_code, "expected a readable YAML file" in answer.text) == (422, True)
        (tmp_path / "gateway.yaml").rmdir()
        assert fakes[1].stats()["total"] == 0
        write_config(tmp_path / "gateway.yaml", upstream("there", fakes[1].url), scalars="  admin_key: env:ADMIN\n")
        assert program.http().post("/admin/v1/reload", headers=ADMIN).status_code == 200
        assert ask(program, "ok", False) == (TEXT, "stop")
        assert fakes[1].stats()["total"] == 1


def test_reloads_under_load_drop_nothing(fakes, tmp_path):
    with gateway(tmp_path, upstream("here", fakes[0].url)) as program:
        stop = threading.Event()

        def keep_asking():
            seen = []
            while not stop.is_set():
                seen.append(ask(program, "ok", True))
            return seen

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            workers = [pool.submit(keep_asking) for _ in range(6)]
            for i in range(10):
                write_config(tmp_path / "gateway.yaml", upstream("here" if i % 2 else "there", fakes[i % 2].url))
                program.process.send_signal(signal.SIGHUP)
                time.sleep(0.2)
            stop.set()
            seen = [answer for worker in workers for answer in worker.result()]
    assert len(seen) > 20
    assert set(seen) == {(TEXT, "stop")}


def test_tenants_are_asked_for_keys_and_held_to_their_limits(fakes, tmp_path):
    scalars = f"  admin_key: env:ADMIN\n  tenants: {tmp_path}/tenants.db\n"
    with gateway(tmp_path, upstream("one", fakes[0].url, price="{input: 1.0, output: 2.0}"), scalars=scalars,
                 environment={"ADMIN": "admin-secret"}) as program:
        assert ask(program, "ok", False)[1] == "error:AuthenticationError"
        assert program.http().get("/v1/models").status_code == 401
        assert program.http().get("/health/ready").status_code == 200
        made = program.http().post("/admin/v1/keys", headers=ADMIN, json={
            "tenant": "acme", "models": ["ok", "tiny*"], "requests_per_minute": 3}).json()
        program.key = made["key"]
        assert [ask(program, "ok", stream)[1] for stream in (False, True, False)] == ["stop"] * 3
        with pytest.raises(openai.RateLimitError) as error:
            program.openai().chat.completions.create(model="ok", messages=ASK)
        assert int(error.value.response.headers["Retry-After"]) > 0
        assert ask(program, "other", False)[1] == "error:PermissionDeniedError"
        program.key = None
        usage = program.http().get("/admin/v1/usage", headers=ADMIN).json()["data"]
        assert sum(row["requests"] for row in usage) == 3
        assert sum(row["output_tokens"] for row in usage) == 60
        assert program.http().get("/admin/v1/audit", headers=ADMIN).json()["data"][0]["action"] == "key.create"
        assert made["key"].encode() not in (tmp_path / "tenants.db").read_bytes()


def test_a_key_may_be_given_an_alias_and_sees_only_its_models(fakes, tmp_path):
    with gateway(tmp_path, upstream("here", fakes[0].url, models="[ok, other]"), environment={"ADMIN": "admin-secret"},
                 scalars=f'  admin_key: env:ADMIN\n  tenants: "{tmp_path}/t.db"\n  aliases: ["best=ok", "worst=other"]\n') as program:
        http = program.http()
        key = http.post("/admin/v1/keys", headers=ADMIN, json={"tenant": "acme", "models": ["best"]}).json()["key"]
        client = program.openai().with_options(api_key=key)
        assert [model.id for model in client.models.list()] == ["best"]
        assert client.chat.completions.create(model="best", messages=ASK).choices[0].message.content == TEXT
        for refused in ("ok", "other", "worst"):  # the alias is the right, not what it stands for
            with pytest.raises(openai.PermissionDeniedError):
                client.chat.completions.create(model=refused, messages=ASK)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")
        wide = http.post("/admin/v1/keys", headers=ADMIN, json={"tenant": "acme", "models": ["ok"]}).json()["key"]
        assert [model.id for model in client.with_options(api_key=wide).models.list()] == ["best", "ok"]


def test_concurrent_requests_do_not_pass_a_token_limit_together(fakes, tmp_path):
    scalars = f"  admin_key: env:ADMIN\n  tenants: {tmp_path}/tenants.db\n"
    with gateway(tmp_path, upstream("one", fakes[0].url), scalars=scalars, environment={"ADMIN": "admin-secret"}) as program:
        program.key = program.http().post("/admin/v1/keys", headers=ADMIN, json={"tenant": "acme", "tokens_per_minute": 100}).json()["key"]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            ends = list(pool.map(lambda _: ask(program, "ok", False, max_tokens=20)[1], range(48)))
        assert set(ends) == {"stop", "error:RateLimitError"}
        assert ends.count("stop") * 27 <= 100 + 27


def test_a_cache_answers_what_was_asked_before(fakes, tmp_path):
    with gateway(tmp_path, upstream("one", fakes[0].url), scalars="  cache_bytes: 1MiB\n") as program:
        for _ in range(3):
            assert ask(program, "ok", False, temperature=0) == (TEXT, "stop")
        assert fakes[0].stats()["total"] == 1
        ask(program, "ok", False, temperature=1)
        ask(program, "ok", False, temperature=1)
        assert fakes[0].stats()["total"] == 3


def test_identical_embeddings_are_asked_once(tmp_path):
    slow = Fake("--token-us", "300000")
    try:
        with gateway(tmp_path, upstream("one", slow.url)) as program:
            def embed(text):
                return program.openai().embeddings.create(model="ok", input=text, encoding_format="float").data[0].embedding
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(embed, ["same"] * 10 + ["other"] * 2))
            assert answers == [[0.5, -0.25]] * 12
            assert slow.stats()["total"] == 2
    finally:
        slow.stop()


def test_traces_go_on_to_upstreams_and_into_the_log(fakes, tmp_path):
    log = tmp_path / "access.jsonl"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with gateway(tmp_path, upstream("one", fakes[0].url), scalars=f'  access_log: "{log}"\n') as program:
        ask(program, "ok", False, extra_headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": "a=b"})
        sent = fakes[0].last()["headers"]
        assert sent["traceparent"].startswith(f"00-{trace}-") and "00f067aa0ba902b7" not in sent["traceparent"]
        assert sent["tracestate"] == "a=b"
        ask(program, "ok", False)
        assert trace not in fakes[0].last()["headers"]["traceparent"]
    assert json.loads(log.read_text().splitlines()[0])["trace_id"] == trace


def test_endpoints_of_a_kubernetes_service_are_upstreams(fakes, tmp_path):
    ready = [fakes[0].port]

    class Cluster(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/v1/namespaces/prod/endpoints/llm"
            subsets = [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "http", "port": port}]} for port in ready]
            body = json.dumps({"kind": "Endpoints", "subsets": subsets}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    cluster = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    threading.Thread(target=cluster.serve_forever, daemon=True).start()
    try:
        with gateway(tmp_path, upstream("pods", "http://llm.prod", discovery="kubernetes", service="prod/llm:http"),
                     scalars="  discovery_interval: 100ms\n",
                     environment={"KUBERNETES_API_URL": f"http://127.0.0.1:{cluster.server_port}"}) as program:
            assert ask(program, "ok", False) == (TEXT, "stop")
            assert fakes[0].stats()["total"] == 1
            ready[:] = [fakes[1].port]
            assert eventually(lambda: ask(program, "ok", False) == (TEXT, "stop") and fakes[1].stats()["total"] > 0)
            cluster.shutdown()
            cluster.server_close()
            time.sleep(0.3)
            assert ask(program, "ok", False) == (TEXT, "stop")  # the addresses known last go on
    finally:
        cluster.server_close()


def nodes(tmp_path, count=2):
    programs = []
    for i in range(count):
        folder = tmp_path / f"node{i}"
        folder.mkdir()
        programs.append(Program(folder))
    return [program.wait_ready() for program in programs]


def stream_text(program, on_event=None, **extra):
    text, ids, seen = "", set(), 0
    body = {"model": "tiny-r1", "messages": ASK, "stream": True, "max_tokens": 400, "ignore_eos": True, **extra}
    with program.http().stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            assert "spillway {" not in line
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            ids.add(event["id"])
            for choice in event["choices"]:
                text += (choice["delta"].get("reasoning_content") or "") + (choice["delta"].get("content") or "")
                finish = choice["finish_reason"]
            usage = event.get("usage")
            seen += 1
            if on_event:
                on_event(seen, response.headers["X-Spillway-Upstream"])
    return text, ids, finish, usage


@pytest.mark.parametrize("extra", [{"seed": 11, "temperature": 1.0}, {"temperature": 0, "frequency_penalty": 0.5}])
def test_a_node_killed_mid_stream_is_resumed_token_by_token(tmp_path, extra):
    pair = nodes(tmp_path)
    try:
        named = {f"node{i}": node for i, node in enumerate(pair)}
        with gateway(tmp_path, *[upstream(name, node.url, kind="spillway") for name, node in named.items()]) as program:
            whole = stream_text(program, **extra)
            killed = []

            def kill(seen, name):
                if seen == 60 and not killed:
                    named[name].process.kill()
                    killed.append(name)

            resumed = stream_text(program, kill, **extra)
            assert killed
            assert resumed[0] == whole[0]
            assert len(resumed[1]) == 1
            assert resumed[2] == whole[2]
            counts = ("prompt_tokens", "completion_tokens", "total_tokens")
            assert [resumed[3][name] for name in counts] == [whole[3][name] for name in counts]  # counted once
            assert program.metric("spillway_gateway_resumed_total", how="exact") == 1
    finally:
        for node in pair:
            node.process.kill()
            node.process.wait()


def test_load_reports_of_spillways_are_read(tmp_path):
    (node,) = nodes(tmp_path, 1)
    try:
        with gateway(tmp_path, upstream("node", node.url, kind="spillway"), scalars="  admin_key: env:ADMIN\n",
                     environment={"ADMIN": "admin-secret"}) as program:
            def report():
                return program.http().get("/admin/v1/gateway", headers=ADMIN).json()["upstreams"][0].get("report")
            assert eventually(lambda: report() is not None)
            assert report()["age_s"] < 1
            node.process.kill()
            assert eventually(lambda: program.http().get("/admin/v1/gateway", headers=ADMIN).json()["upstreams"][0]["health"] == "down")
    finally:
        node.process.kill()
        node.process.wait()


def test_a_foreign_stream_goes_on_by_prefix_where_that_is_declared_safe(tmp_path):
    cut, good = Fake("--name", "cut"), Fake("--name", "good", "--healthy", "--tokens", "5")
    try:
        with gateway(tmp_path, upstream("cut", cut.url, tier="edge"),
                     upstream("good", good.url, tier="centre", kind="deepseek", continuation_safe="true"),
                     scalars='  policies: ["edge_first"]\n') as program:
            raw = program.http().post("/v1/chat/completions", json={"model": "cut", "messages": ASK, "stream": True}).text
            text = "".join(choice["delta"].get("content") or "" for event in events(raw) for choice in event["choices"])
            assert text == "".join(f"t{i} " for i in range(13)) + "t0 t1 t2 t3 t4 "
            assert raw.endswith("data: [DONE]\n\n")
            seen = good.last()
            assert seen["path"] == "/beta/chat/completions"
            assert seen["body"]["messages"][-1] == {"role": "assistant", "prefix": True, "content": "".join(f"t{i} " for i in range(13))}
    finally:
        cut.stop()
        good.stop()


class Collector(http.server.BaseHTTPRequestHandler):
    """An OpenTelemetry collector: keeps the spans it is sent."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.spans += [span for resource in body["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_each_attempt_is_a_span_that_its_upstream_continues(tmp_path):
    """The client's trace ▸ the request's span ▸ one span an attempt; an upstream is told the span of its own attempt."""
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    collector.spans = []
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    bad, good = Fake("--name", "bad"), Fake("--name", "good", "--healthy")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    try:
        with gateway(tmp_path, upstream("bad", bad.url, tier="edge"), upstream("good", good.url, tier="centre"),
                     scalars='  policies: ["edge_first"]\n',
                     top=f"telemetry: {{otlp_url: 'http://127.0.0.1:{collector.server_port}/v1/traces'}}\n") as program:
            answer = program.http().post("/v1/chat/completions", json={"model": "503", "messages": ASK},
                                         headers={"traceparent": f"00-{trace}-{parent}-01"})
            assert (answer.status_code, answer.headers["X-Spillway-Attempts"]) == (200, "2")
            assert eventually(lambda: len(collector.spans) == 3)
        facts = lambda span: {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
        root = next(span for span in collector.spans if span["parentSpanId"] == parent)
        attempts = sorted((span for span in collector.spans if span is not root), key=lambda span: int(span["startTimeUnixNano"]))
        assert {span["traceId"] for span in collector.spans} == {trace}
        assert [span["parentSpanId"] for span in attempts] == [root["spanId"]] * 2
        told = [fake.last()["headers"]["traceparent"] for fake in (bad, good)]
        assert told == [f"00-{trace}-{span['spanId']}-01" for span in attempts]
        assert int(attempts[0]["endTimeUnixNano"]) <= int(attempts[1]["startTimeUnixNano"])
        assert (root["kind"], [span["kind"] for span in attempts]) == (2, [3, 3])  # a server, which is a client twice
        assert [facts(span)["gen_ai.provider.name"] for span in (root, *attempts)] == ["spillway", "openai", "openai"]
        usage = ["gen_ai.usage.output_tokens" in facts(span) for span in attempts]
        assert usage == [False, True]  # tokens are told for who gave them
    finally:
        collector.shutdown()
        for fake in (bad, good):
            fake.stop()


def test_what_one_gateway_sent_to_a_node_another_gateway_finds_there(tmp_path):
    """Nodes report the prompts that their caches hold, so that affinity works across gateways."""
    pair = nodes(tmp_path)
    names = ["node0", "node1"]
    upstreams = [upstream(name, node.url, kind="spillway") for name, node in zip(names, pair)]
    prompts = [f"Story {i}. " + f"The {i}th of many sentences that fill a page. " * 60 for i in range(6)]

    def node_of(program, prompt, question):
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": question}]
        answer = program.http().post("/v1/chat/completions", json={"model": "tiny-r1", "messages": messages, "max_tokens": 4})
        assert answer.status_code == 200, answer.text
        return answer.headers["X-Spillway-Upstream"], answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    def held(node):
        return len(node.http().get("/v1/cached_prefixes").json()["blocks"])

    try:
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        second.mkdir()
        with gateway(first, *upstreams, scalars='  policies: ["weighted"]\n') as one, \
             gateway(second, *upstreams, scalars='  policies: ["least_predicted", "prefix_affinity"]\n') as two:
            where = [node_of(one, prompt, "One?")[0] for prompt in prompts]
            assert set(where) == set(names)  # by weights, and with these prompts on both
            assert all(held(node) > 0 for node in pair)
            time.sleep(2.5)  # reports come every second
            again = [node_of(two, prompt, "Two?") for prompt in prompts]
            assert [name for name, _ in again] == where
            assert all(cached > 100 for _, cached in again)
    finally:
        for node in pair:
            node.process.kill()
            node.process.wait()


def test_streams_under_way_end_when_the_gateway_is_told_to_stop(tmp_path):
    slow = Fake("--token-us", "50000")
    try:
        with gateway(tmp_path, upstream("slow", slow.url)) as program:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                streams = [pool.submit(ask, program, "ok", True) for _ in range(8)]
                assert eventually(lambda: slow.stats()["active"] == 8)
                program.process.terminate()
                assert {done.result() for done in streams} == {(TEXT, "stop")}
            assert program.process.wait(10) == 0
    finally:
        slow.stop()
