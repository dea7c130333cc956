"""A server with the console's files and a made-up live state: what a busy fleet of 10,000 requests a second looks like.

    fake_feed.py [--port 8099] [--requests 10000]

The console cannot tell it from a real one: frames come ten times a second, as large as the program's bounds let them be."""
import argparse
import http.server
import json
import math
import pathlib
import random
import threading
import time

WEB = pathlib.Path(__file__).resolve().parents[2] / "web/console"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
START = time.time()


class Fleet:
    def __init__(self, requests_per_s):
        self.rate = requests_per_s
        self.random = random.Random(7)
        self.columns = [self.column(i) for i in range(-179, 1)]
        self.seconds = [self.second(i) for i in range(-179, 1)]
        self.number = 180

    def column(self, i):
        column = [0] * 32
        centre = 11 + 2.5 * math.sin(i / 23) + (4 if i % 90 > 80 else 0)
        for _ in range(400):
            bucket = min(31, max(0, int(self.random.gauss(centre, 2.2))))
            column[bucket] += self.rate // 400
        return column

    def second(self, i):
        wave = 0.75 + 0.2 * math.sin(i / 17) + self.random.uniform(-0.03, 0.03)
        return {"requests_per_s": self.rate * wave, "generated_per_s": 240 * self.rate * wave, "prompt_per_s": 900 * self.rate * wave,
                "waiting": max(0, 60 * math.sin(i / 23) + self.random.uniform(0, 30)), "running": 118,
                "pages_used": 0.72 + 0.12 * math.sin(i / 40)}

    def streams(self, now):
        out = []
        for i in range(128):
            phase = "decode" if i < 90 else "prefill" if i < 104 else "waiting"
            generated = int(now * 30 + i * 37) % 800 if phase == "decode" else 0
            prompt = 200 + (i * 379) % 6000
            out.append({"id": i + 1, "name": f"{i * 2654435761 % 2**32:08x}{i:08x}", "phase": phase, "priority": 0, "prompt": prompt,
                        "cached": prompt // 3 // 16 * 16, "computed": prompt if phase == "decode" else prompt // 2, "generated": generated,
                        "max": 800, "pages": (prompt + generated) // 16, "preemptions": 0, "age_s": (generated + 1) / 30,
                        "wait_s": (i - 103) * 0.13 if phase == "waiting" else 0})
        return out

    def frame(self):
        now = time.time() - START
        number = 180 + int(now)
        while self.number < number:
            self.number += 1
            self.columns = self.columns[1:] + [self.column(self.number)]
            self.seconds = self.seconds[1:] + [self.second(self.number)]
        last = self.seconds[-1]
        uses = "".join(self.random.choice("1222233") if i < 400 else self.random.choice("0011") for i in range(512))
        engine = {"steps": int(now * 20), "running": 104, "decoding": 90, "waiting": 24, "blocked": True, "streams": self.streams(now),
                  "step": {"decode_rows": 90, "prefill_tokens": 300 + self.random.randrange(100), "sequences": 104, "draft_rows": 20,
                           "seconds": 0.048, "seconds_mean": 0.047, "rows_mean": 410}, "cost": {"base_s": 0.01, "row_s": 1e-4, "token_s": 1e-5},
                  "batch_tokens_max": 512, "sequences_max": 128,
                  "pages": {"tokens": 16, "total": 32768, "free": 3500, "cached": 5200, "shared": 2600, "map": uses},
                  "prefixes": {"pages": 9400, "idle": 5200, "roots": 37, "leaves": 410, "forks": 88, "depth": 240,
                               "largest": [{"pages": 2400 // (i + 1), "idle": 900 // (i + 1), "leaves": 60 // (i + 1), "depth": 240 - 12 * i} for i in range(12)]}}
        upstreams = [{"name": f"edge-{i}" if i < 4 else ["centre", "deepseek"][i - 4], "kind": "spillway" if i < 5 else "deepseek",
                      "tier": ["edge", "edge", "edge", "edge", "centre", "provider"][i], "health": ["healthy", "healthy", "probing", "down", "healthy", "healthy"][i],
                      "share": 0.4 if i == 2 else 1, "opens_in_s": 4.2, "in_flight": [12, 31, 1, 0, 88, 4][i], "concurrency_max": 64 if i != 4 else 128,
                      "prefill_tokens_per_s": 5000, "decode_tokens_per_s": [31, 29, 12, 0, 44, 28][i], "first_token_p50_s": 0.21 + i / 20,
                      "first_token_p99_s": 0.9 + i / 3, "price_input": 0 if i < 5 else 0.55, "price_output": 0 if i < 5 else 2.19, "models": ["deepseek-reasoner"],
                      **({"report": {"age_s": 1, "running": 12, "waiting": 3, "predicted_wait_s": 0.4, "memory_used": 0.7}} if i < 5 else {})} for i in range(6)]
        recent = [{"id": f"{(int(now * 10) - i) * 2654435761 % 2**32:08x}", "route": "/v1/chat/completions", "model": "r1", "age_s": i * 0.01,
                   "total_s": 0.4 + i / 30, "first_s": 0.2, "queue_s": 0.05, "prompt": 900, "tokens": 140, "attempts": i % 3, "upstream": "edge-1" if i % 3 else "",
                   "ended": i > 6, "status": 200 if i % 13 else 503, "outcome": "ok" if i % 13 else "overloaded"} for i in range(40)]
        hardware = []
        for gpu in range(8):
            for name, unit, value in (("gpu_utilization_ratio", "ratio", 0.9), ("gpu_memory_used_ratio", "ratio", 0.8), ("gpu_temperature_celsius", "celsius", 61),
                                      ("gpu_power_watts", "watts", 540)):
                hardware.append({"name": "spillway_" + name, "kind": "gauge", "unit": unit, "help": name, "labels": {"gpu": str(gpu)},
                                 "value": value * (1 + 0.05 * math.sin(now + gpu))})
        business = [{"name": f"spillway_business_{name}", "kind": "gauge", "unit": unit, "help": name, "value": value * at,
                     "labels": {"model": model, "version": "1", "route": "/v1/chat/completions", "tenant": "", "arm": arm, "window": window, "bound": bound}}
                    for name, unit, value in (("conversion_ratio", "ratio", 0.131), ("ndcg_ratio", "ratio", 0.71), ("accuracy_ratio", "ratio", 0.88), ("thumbs_up_ratio", "ratio", 0.8),
                                              ("cost_per_conversion_dollars", "dollars", 0.042))
                    for model, arm, ratio in (("r1", "centre", 1), ("r1-int8", "edge", 0.97), ("r1-int4", "edge-small", 0.8)) for window in ("1h", "24h")
                    for bound, at in (("estimate", ratio), ("low", ratio * 0.94), ("high", ratio * 1.06))]
        return {"at": time.time(), "uptime_s": 86400 * 3 + now, "status": "ready",
                "requests": {"in_flight": 4200, "per_s": last["requests_per_s"], "errors_per_s": 0.4, "refusals_per_s": 3, "p50_s": 0.41, "p95_s": 1.3, "p99_s": 2.2,
                             "first_p50_s": 0.19, "first_p99_s": 0.83},
                "tokens": {"generated_per_s": last["generated_per_s"], "prompt_per_s": last["prompt_per_s"], "cache_hits": 0.63},
                "host": {"cpu_busy": 0.7, "cpu_own": 0.61, "processors": 128},
                "verdict": {"resource": "slots", "severity": "bad", "efficiency": 0.81, "memory_floor_s": 0.038, "compute_floor_s": 0.02, "step_s": 0.047,
                            "step_bytes": 1e9, "step_flops": 1e12, "bandwidth": 2.8e12, "flops_peak": 5e13, "slots_used": 1, "pages_used": 0.73, "predicted_wait_s": 2.6,
                            "waiting": 24, "cpu_of_others": 0.09, "error_share": 0.00004, "upstreams_down": 1,
                            "shares": {"queue": 0.46, "prefill": 0.09, "decode": 0.38, "upstream": 0.04, "other": 0.03, "requests": 200}},
                "models": [{"name": "deepseek-r1-distill-qwen-32b", "context_tokens_max": 32768, "running": 104, "waiting": 24, "waiting_tokens": 48000,
                            "predicted_wait_s": 2.6, "tokens_per_s": 2400000, "pages_total": 32768, "pages_free": 3500, "pages_cached": 5200,
                            "draft_acceptance": 0.7, "seconds_since_progress": 0, "stalled": False, "engine": engine}],
                "upstreams": upstreams, "recent": recent, "hardware": hardware, "business": business,
                "second": {"number": self.number, "column": self.columns[-1], **last}}

    def whole(self):
        frame = self.frame()
        return {"frame": frame, "history": {"columns": self.columns, "seconds": self.seconds, "bounds": [0.001 * 1.5**i for i in range(32)], "number": self.number},
                "configuration": [{"key": "network.port", "value": "8000", "origin": "default", "help": "HTTP port.", "hot": False}]}


class Handler(http.server.BaseHTTPRequestHandler):
    fleet = None
    lock = threading.Lock()

    def log_message(self, *arguments):
        pass

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        name = "index.html" if path == "/console" else path.removeprefix("/console/")
        if path == "/console/api/state":
            with self.lock:
                body = json.dumps(self.fleet.whole()).encode()
            return self.answer(200, "application/json", body)
        if path == "/console/api/events":
            return self.events()
        if path == "/v1/models":
            return self.answer(200, "application/json", b'{"object":"list","data":[{"id":"r1"}]}')
        file = WEB / name
        if "/" in name or not file.is_file():
            return self.answer(404, "application/json", b'{"error":{"message":"no such path"}}')
        return self.answer(200, TYPES[file.suffix], file.read_bytes())

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            while True:
                with self.lock:
                    data = json.dumps(self.fleet.frame())
                self.wfile.write(f"data: {data}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass


def serve(port, requests_per_s=10000):
    Handler.fleet = Fleet(requests_per_s)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--requests", type=int, default=10000)
    options = parser.parse_args()
    serve(options.port, options.requests).serve_forever()
