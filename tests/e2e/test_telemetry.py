"""Telemetry: feedback, traces, the formats of /metrics, and the spool into real Prometheus and InfluxDB servers (where
they are installed) through an outage and a kill -9."""
import contextlib
import http.server
import json
import shutil
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from conftest import MODEL, Program

TRACE = "0af7651916cd43dd8448eb211c80319c"
QUESTION = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "What is 12 + 30?"}]}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(check, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, LookupError):
            found = check()
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"{check} not true after {seconds} s")


@contextlib.contextmanager
def running(command, log):
    with open(log, "w") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


# ---- feedback ----


def ask(http, **headers):
    answer = http.post("/v1/chat/completions", json=QUESTION, headers=headers)
    assert answer.status_code == 200
    return answer.headers["X-Request-Id"]


def test_feedback_joins_once_to_a_request(server):
    http = server.http()
    request = ask(http, **{"X-Experiment-Arm": "edge-int8"})
    assert len(request) == 32
    said = {"request_id": request, "conversion": True, "value": 12.5, "thumbs": "up", "relevance": [3, 2, 0, 1]}
    first = http.post("/v1/feedback", json=said)
    assert (first.status_code, first.json()["status"]) == (200, "accepted")
    assert http.post("/v1/feedback", json=said).json()["status"] == "duplicate"
    other = http.post("/v1/feedback", json={"request_id": request, "thumbs": "down"})
    assert other.status_code == 422 and other.json()["error"]["code"] == "feedback_conflict"
    assert server.metric("spillway_business_outcomes_total", arm="edge-int8", outcome="thumbs_up") == 1
    assert server.metric("spillway_business_outcomes_total", arm="edge-int8", outcome="conversion") == 1
    assert server.metric("spillway_business_conversion_value", arm="edge-int8") == 12.5


def test_feedback_that_cannot_be_taken(server):
    http = server.http()
    forged = http.post("/v1/feedback", json={"request_id": "0" * 32, "thumbs": "up"})
    assert forged.status_code == 404 and forged.json()["error"]["code"] == "request_not_found"
    huge = http.post("/v1/feedback", content=b" " * 70000, headers={"Content-Type": "application/json"})
    assert huge.status_code == 413
    wrong = http.post("/v1/feedback", json={"request_id": ask(http), "thumbs": "sideways"})
    assert wrong.status_code == 400 and "expected \"up\" or \"down\"" in wrong.json()["error"]["message"]


def test_an_id_that_the_client_chose_needs_the_same_key(start):
    program = start("--api-keys", "alpha,beta", key="alpha")
    http = program.http()
    chosen = ask(http, **{"X-Request-Id": "guess-me"})
    assert chosen == "guess-me"
    said = {"request_id": chosen, "thumbs": "up"}
    assert http.post("/v1/feedback", json=said, headers={"Authorization": "Bearer beta"}).status_code == 403
    assert http.post("/v1/feedback", json=said).json()["status"] == "accepted"


# ---- formats and traces ----


def test_open_metrics_has_exemplars_with_trace_ids(server):
    ask(server.http(), traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    answer = server.http().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert f'# {{trace_id="{TRACE}"}}' in answer.text
    assert "# TYPE spillway_http_requests counter" in answer.text
    assert TRACE not in server.http().get("/metrics").text


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def collector(port=0):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Collector)
    server.bodies = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_spans_reach_an_otlp_collector(start):
    with collector() as sink:
        program = start("--otlp-url", f"http://127.0.0.1:{sink.server_port}/v1/traces", "--otlp-token", "secret")
        request = ask(program.http(), traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        path, headers, body = until(lambda: sink.bodies)[0]
    assert path == "/v1/traces" and headers["Authorization"] == "Bearer secret"
    span = json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["parentSpanId"]) == (TRACE, "b7ad6b7169203331")
    attributes = {one["key"]: one["value"] for one in span["attributes"]}
    assert attributes["gen_ai.operation.name"] == {"stringValue": "chat"}
    assert attributes["gen_ai.response.id"] == {"stringValue": request}
    assert 0 < int(attributes["gen_ai.usage.output_tokens"]["intValue"]) <= 8
    assert int(span["endTimeUnixNano"]) > int(span["startTimeUnixNano"])


def test_an_outage_of_the_collector_and_a_kill_lose_no_span(tmp_path):
    """The collector is down while requests are answered, the program is killed, the collector comes: every span once."""
    port = free_port()
    flags = ["--otlp-url", f"http://127.0.0.1:{port}/v1/traces", "--spool-dir", str(tmp_path / "spool")]
    program = Program(tmp_path, *flags).wait_ready()
    requests = [ask(program.http()) for _ in range(20)]
    until(lambda: program.metric("spillway_telemetry_spans_total", result="spooled") == 20)
    assert program.metric("spillway_telemetry_failed_sends_total", outlet="otlp") >= 1
    program.process.send_signal(signal.SIGKILL)
    program.process.wait()
    with collector(port) as sink:
        program = Program(tmp_path, *flags).wait_ready()
        try:
            requests += [ask(program.http()) for _ in range(5)]
            until(lambda: program.metric("spillway_telemetry_points_total", outlet="otlp", result="accepted") == 25)
        finally:
            program.stop()
        spans = [span for _, _, body in sink.bodies for span in json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    told = [one["value"]["stringValue"] for span in spans for one in span["attributes"] if one["key"] == "gen_ai.response.id"]
    assert told == requests  # each once, in order


def test_influxdb_v2_is_spoken(start, tmp_path):
    with collector() as sink:
        start("--influxdb-url", f"http://127.0.0.1:{sink.server_port}", "--influxdb-api", "v2", "--influxdb-org", "my org",
              "--influxdb-token", "secret", "--spool-dir", str(tmp_path / "spool"), "--telemetry-interval", "0.2s")
        path, headers, body = until(lambda: sink.bodies)[0]
    assert path == "/api/v2/write?org=my%20org&bucket=spillway&precision=ms"
    assert headers["Authorization"] == "Token secret"
    assert b"spillway_slo_objective_ratio value=0.9999 " in body


# ---- real receivers ----


class Prometheus:
    def __init__(self, folder, scrape):
        self.port = free_port()
        config = {"global": {"scrape_interval": "1s"},
                  "scrape_configs": [{"job_name": "spillway", "static_configs": [{"targets": [scrape]}]}] if scrape else []}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                        f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-remote-write-receiver",
                        "--enable-feature=native-histograms,exemplar-storage"]

    def query(self, text, **options):
        answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": text, **options})
        return answer.raise_for_status().json()["data"]["result"]  # 503 while it starts


@pytest.mark.skipif(not shutil.which("promtool"), reason="prometheus is not installed")
def test_promtool_has_nothing_to_say_to_the_metrics(start, tmp_path):
    program = start("--dcgm-names", "--influxdb-url", "http://127.0.0.1:9", "--spool-dir", str(tmp_path / "spool"), "--telemetry-interval", "0.2s")
    ask(program.http())
    assert program.http().post("/v1/feedback", json={"request_id": ask(program.http()), "conversion": True}).status_code == 200
    until(lambda: program.metric("spillway_business_conversion_ratio", bound="estimate") > 0 and program.metric("spillway_telemetry_spool_bytes") > 0)
    text = program.http().get("/metrics", headers={"Accept": "text/plain"}).text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_prometheus_scrapes_native_histograms_and_exemplars(server, tmp_path):
    prometheus = Prometheus(tmp_path, f"127.0.0.1:{server.port}")
    with running(prometheus.command, tmp_path / "log.txt"):
        ask(server.http(), traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        native = until(lambda: prometheus.query(
            'histogram_quantile(0.5, spillway_http_request_seconds{route="/v1/chat/completions"})'))
        assert 0 < float(native[0]["value"][1]) < 60
        up = prometheus.query('up{job="spillway"}')
        assert up[0]["value"][1] == "1"
        now = time.time()
        exemplars = httpx.get(f"http://127.0.0.1:{prometheus.port}/api/v1/query_exemplars",
                              params={"query": "spillway_http_request_seconds_bucket", "start": now - 60, "end": now + 60})
        assert exemplars.json()["status"] == "success"


class Influx:
    def __init__(self, folder):
        self.port, rpc = free_port(), free_port()
        folder.mkdir()
        (folder / "influxdb.conf").write_text(f"""
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{self.port}"
""")
        self.command = ["influxd", "-config", folder / "influxdb.conf"]
        self.url = f"http://127.0.0.1:{self.port}"

    def ready(self):
        until(lambda: httpx.get(self.url + "/ping").status_code == 204)
        httpx.post(self.url + "/query", params={"q": "CREATE DATABASE spillway"}).raise_for_status()

    def points(self, series):
        answer = httpx.get(self.url + "/query", params={"db": "spillway", "epoch": "ms", "q": f'SELECT value FROM "{series}"'})
        found = answer.json()["results"][0].get("series", [{"values": []}])
        return [(time_ms, value) for time_ms, value in found[0]["values"]]


INTERVAL_MS = 200
READINGS = "spillway_telemetry_readings_total"  # its value is the number of the reading


def reading_flags(folder, *flags):
    return ["--spool-dir", str(folder / "spool"), "--telemetry-interval", f"{INTERVAL_MS / 1000}s", *flags]


@pytest.mark.skipif(not (shutil.which("prometheus") and shutil.which("influxd")), reason="needs prometheus and influxdb")
def test_an_outage_and_a_kill_lose_no_point(tmp_path):
    influx, prometheus = Influx(tmp_path / "influx"), Prometheus(tmp_path, None)
    flags = reading_flags(tmp_path, "--influxdb-url", influx.url,
                          "--remote-write-url", f"http://127.0.0.1:{prometheus.port}/api/v1/write")
    folder = tmp_path / "program"
    folder.mkdir()
    program = Program(folder, *flags).wait_ready()  # both receivers are down
    time.sleep(2)
    program.process.send_signal(signal.SIGKILL)
    program.process.wait()
    killed = time.time() * 1000
    program = Program(folder, *flags).wait_ready()
    time.sleep(1.5)
    try:
        with running(influx.command, tmp_path / "influx.log"), running(prometheus.command, tmp_path / "prometheus.log"):
            influx.ready()
            up = time.time() * 1000
            until(lambda: influx.points(READINGS)[-1][0] > up)
            until(lambda: program.metric("spillway_telemetry_points_total", result="accepted", outlet="remote_write") > 0
                  and program.metric("spillway_telemetry_lag_seconds", outlet="remote_write") < 1)
            in_influx = influx.points(READINGS)
            series = prometheus.query(READINGS + "[10m]")
    finally:
        program.stop()
    assert len(series) == 1
    in_prometheus = [(round(1000 * float(at)), float(value)) for at, value in series[0]["values"]]
    for found in (in_influx, in_prometheus):
        times = [at for at, _ in found]
        assert times == sorted(set(times)), "in order and without duplicates"
        # Each reading carries its number, so what a process took is there when the numbers follow one another from 1.
        for part in ([v for at, v in found if at <= killed], [v for at, v in found if at > killed]):
            assert len(part) >= 4
            assert part == list(range(1, len(part) + 1)), "no reading is missing"


class VictoriaMetrics:
    """Written by other people than InfluxDB and Prometheus, and speaks the protocols of both: /api/v2/write and remote write."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = ["victoria-metrics", f"-storageDataPath={folder / 'victoria'}", f"-httpListenAddr=127.0.0.1:{self.port}"]

    def ready(self):
        until(lambda: httpx.get(self.url + "/health").status_code == 200)

    def points(self, series):
        """Raw, as they were taken in: {labels: [(ms, value)]}; one taken twice would be there twice."""
        answer = httpx.get(self.url + "/api/v1/export", params={"match[]": series, "start": time.time() - 600})
        rows = [json.loads(line) for line in answer.text.splitlines()]
        return {tuple(sorted(row["metric"].items())): list(zip(row["timestamps"], row["values"])) for row in rows}


@pytest.mark.skipif(not shutil.which("victoria-metrics"), reason="victoria-metrics is not installed")
def test_both_outlets_say_the_same_to_a_third_receiver(tmp_path):
    victoria = VictoriaMetrics(tmp_path)
    folder = tmp_path / "program"
    folder.mkdir()
    program = Program(folder, *reading_flags(tmp_path, "--influxdb-url", victoria.url, "--influxdb-api", "v2", "--influxdb-org", "an org",
                                             "--influxdb-token", "secret", "--remote-write-url", victoria.url + "/api/v1/write"))
    try:
        program.wait_ready()  # the receiver is down
        asked = ask(program.http())
        with running(victoria.command, tmp_path / "victoria.log"):
            victoria.ready()
            up = time.time() * 1000
            by_lines, by_remote_write = READINGS + "_value", READINGS  # it appends the field's name to what comes as lines
            until(lambda: all(points[-1][0] > up + 1000 for name in (by_lines, by_remote_write) for points in [victoria.points(name).popitem()[1]]))
            httpx.get(victoria.url + "/internal/force_flush").raise_for_status()  # what it took in becomes visible shard by shard
            lines, remote = victoria.points('{__name__=~".+_value"}'), victoria.points('{__name__!~".+_value"}')
    finally:
        program.stop()
    assert asked

    def times(found, name):
        each = [at for labels, points in found.items() if dict(labels)["__name__"] == name for at, _ in points]
        assert each == sorted(set(each)) and len(each) >= 5, "in order and without duplicates"
        return each

    last = min(times(lines, by_lines)[-2], times(remote, by_remote_write)[-2])  # later ones may have come to one of the two only

    def told(found, strip):
        return {strip(dict(labels)): [(at, value) for at, value in points if at <= last] for labels, points in found.items()}

    def line_name(labels):
        return (labels.pop("__name__").removesuffix("_value"), *sorted(labels.items()))

    lines = {key: points for key, points in told(lines, line_name).items() if points}
    remote = {key: points for key, points in told(remote, line_name).items() if points}
    assert len(lines) > 100
    assert [value for _, value in next(points for key, points in lines.items() if key[0] == READINGS)][:3] == [1, 2, 3]
    different = {key: (lines.get(key), remote.get(key)) for key in lines.keys() | remote.keys() if lines.get(key) != remote.get(key)}
    assert not different, dict(list(different.items())[:3])
