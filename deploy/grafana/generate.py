#!/usr/bin/env python3
"""Writes the Grafana dashboards of the three layers into deploy/grafana/dashboards/.

Service panels are chosen by hand below. The hardware and the business dashboard show every metric of their layer in
docs/metrics.md, which is printed from the program's registry; run this again when that changes. tests/tidy/deploy_test.py
holds every metric that a panel queries against the registry."""
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"
UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit", "celsius": "celsius", "watts": "watt", "joules": "joule",
         "hertz": "hertz", "tokens": "short", "": "short"}
FILTER = 'job=~"$job",instance=~"$instance"'


def quantile(q, metric, by=""):
    return f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) (rate({metric}_bucket{{{FILTER}}}[$__rate_interval])))"


def rate(metric, by="", more=""):
    inner = f"rate({metric}{{{FILTER}{more}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def gauge(metric, by=""):
    inner = f"{metric}{{{FILTER}}}"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


# title, unit, [(expression, legend)]
SERVICE = [
    ("Requests by status", "reqps", [(rate("spillway_http_requests_total", "status"), "{{status}}")]),
    ("Errors by cause", "reqps", [(rate("spillway_http_outcomes_total", "outcome", ',outcome!="ok"'), "{{outcome}}")]),
    ("Latency", "s", [(quantile(q, "spillway_http_request_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99, 0.999)]),
    ("First token", "s", [(quantile(q, "spillway_http_time_to_first_token_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]),
    ("Between tokens", "s", [(quantile(q, "spillway_engine_inter_token_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]),
    ("Wait in the queue", "s", [(quantile(q, "spillway_engine_queue_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]),
    ("Error budget burn (99.99%; 1 is on budget)", "short", [
        (f'sum(rate(spillway_http_requests_total{{{FILTER},status=~"5.."}}[{w}])) / sum(rate(spillway_http_requests_total{{{FILTER}}}[{w}])) / 0.0001', w)
        for w in ("5m", "1h", "6h")]),
    ("Refused by admission", "reqps", [(rate("spillway_http_refusals_total", "reason"), "{{reason}}")]),
    ("Running and waiting", "short", [(gauge("spillway_engine_requests_running"), "running"), (gauge("spillway_engine_requests_waiting"), "waiting")]),
    ("Tokens", "short", [(rate("spillway_engine_generated_tokens_total"), "out"), (rate("spillway_engine_prompt_tokens_total"), "in")]),
    ("Step", "s", [(quantile(q, "spillway_engine_step_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)]),
    ("Rows and sequences of a step", "short", [(quantile(0.5, "spillway_engine_step_tokens"), "rows p50"), (quantile(0.5, "spillway_engine_batch_sequences"), "sequences p50")]),
    ("KV pages", "short", [(gauge("spillway_engine_kv_pages", "state"), "{{state}}")]),
    ("Prefix cache hits", "percentunit", [(f'{rate("spillway_engine_prefix_cache_hit_tokens_total")} / {rate("spillway_engine_prefix_cache_query_tokens_total")}', "hits")]),
    ("Drafts kept", "percentunit", [(f'{rate("spillway_engine_draft_tokens_accepted_total")} / {rate("spillway_engine_draft_tokens_total")}', "kept")]),
    ("Preemptions, disconnects", "short", [(rate("spillway_engine_preemptions_total"), "preemptions"), (rate("spillway_http_disconnects_total"), "disconnects")]),
    ("Upstreams: attempts that fail", "reqps", [(rate("spillway_gateway_attempts_total", "upstream, result", ',result!="ok"'), "{{upstream}} {{result}}")]),
    ("Upstreams: first token p99", "s", [(quantile(0.99, "spillway_gateway_first_token_seconds", "upstream"), "{{upstream}}")]),
    ("Upstreams: retries and resumed streams", "short", [(rate("spillway_gateway_retries_total", "reason"), "retry: {{reason}}"), (rate("spillway_gateway_resumed_total", "how"), "resumed: {{how}}")]),
    ("Upstreams: tokens", "short", [(rate("spillway_gateway_tokens_total", "upstream, kind"), "{{upstream}} {{kind}}")]),
]


def registry():
    """{layer: [(name, type, unit, labels, help)]} from docs/metrics.md."""
    layers, layer = {}, None
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if line.startswith("## "):
            layer = line[3:].strip().lower()
        found = re.match(r"\| `(\w+)` \| (\w+) \| (\w*) \| (.*?) \| (.*) \|$", line)
        if found:
            name, kind, unit, labels, text = found.groups()
            layers.setdefault(layer, []).append((name, kind, unit, re.findall(r"`(\w+)`", labels), text))
    return layers


def panels_of(layer):
    for name, kind, unit, labels, text in registry().get(layer, []):
        legend = " ".join("{{" + label + "}}" for label in labels) or "{{instance}}"
        title = name.removeprefix("spillway_").removesuffix("_total").replace("_", " ")
        by = ", ".join(["instance", *labels])
        if kind == "histogram":
            targets = [(quantile(q, name, ", ".join(labels)), f"p{q * 100:g} {legend if labels else ''}".strip()) for q in (0.5, 0.99)]
        elif kind == "counter":
            targets = [(rate(name, by), legend)]
        else:
            targets = [(gauge(name, by), legend)]
        yield title, UNITS.get(unit, "short"), targets, text


def panel(index, title, unit, targets, text=""):
    return {
        "id": index + 1, "type": "timeseries", "title": title, "description": text,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": 8 * (index % 3), "y": 8 * (index // 3), "w": 8, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"lineWidth": 2, "fillOpacity": 8, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [{"refId": chr(65 + i), "expr": expression, "legendFormat": legend} for i, (expression, legend) in enumerate(targets)],
    }


def variable(name, query):
    return {"name": name, "label": name, "type": "query", "query": query, "refresh": 2, "multi": True, "includeAll": True,
            "current": {"text": "All", "value": "$__all"}, "datasource": {"type": "prometheus", "uid": "${datasource}"}}


def dashboard(layer, panels):
    return {
        "uid": f"spillway-{layer}", "title": f"Spillway: {layer}", "tags": ["spillway"], "schemaVersion": 39, "version": 1,
        "timezone": "browser", "refresh": "15s", "time": {"from": "now-1h", "to": "now"}, "editable": True,
        "templating": {"list": [
            {"name": "datasource", "label": "source", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "label_values(process_start_time_seconds, job)"),
            variable("instance", 'label_values(process_start_time_seconds{job=~"$job"}, instance)')]},
        "links": [{"type": "dashboards", "tags": ["spillway"], "title": "Layers", "asDropdown": False}],
        "panels": panels,
    }


def render():
    layers = {"service": [panel(i, *row) for i, row in enumerate(SERVICE)]}
    for layer in ("hardware", "business"):
        layers[layer] = [panel(i, *row) for i, row in enumerate(panels_of(layer))]
    return {f"{layer}.json": json.dumps(dashboard(layer, panels), indent=1) + "\n" for layer, panels in layers.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in render().items():
        (FOLDER / name).write_text(text)
        print(f"{name}: {len(json.loads(text)['panels'])} panels")
