"""Load through Triton's own client, in the manner of perf_analyzer: for each concurrency, requests a second and latency of
one model of a running server, over HTTP, gRPC and a gRPC stream.

    python3 bench/protocols/triton_load.py --model mini [--seconds 3] [--concurrency 1,8,32] [--words 20]

Texts are drawn from the words of this file with a fixed seed, their lengths uniform from 1 to twice --words. The client is
Python: what it costs is in the figures."""
import argparse
import concurrent.futures
import json
import pathlib
import random
import re
import threading
import time
import urllib.request

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http


def texts(words, count=256):
    rng = random.Random(7)
    known = re.findall(r"\w+", pathlib.Path(__file__).read_text())
    return [" ".join(rng.choices(known, k=rng.randint(1, 2 * words))) for _ in range(count)]


def requests(module, words):
    out = []
    for text in texts(words):
        tensor = module.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text]], dtype=object))
        out.append([tensor])
    return out


def closed_loop(make_client, module, model, inputs, concurrency, seconds):
    """Each worker has one request under way; latencies in seconds."""
    until = time.monotonic() + seconds

    def work(worker):
        took = []
        with make_client() as client:
            client.infer(model, inputs[worker % len(inputs)])
            for i in range(1 << 30):
                begun = time.monotonic()
                if begun >= until:
                    return took
                client.infer(model, inputs[(worker * 31 + i) % len(inputs)])
                took.append(time.monotonic() - begun)

    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return [each for took in pool.map(work, range(concurrency)) for each in took]


def stream(address, model, inputs, concurrency, seconds):
    begun, took, room = {}, [], threading.Semaphore(concurrency)

    def done(result, error):
        if error:
            raise error
        took.append(time.monotonic() - begun[result.get_response().id])
        room.release()

    with triton_grpc.InferenceServerClient(address) as client:
        client.start_stream(done)
        until, i = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            room.acquire()
            begun[str(i)] = time.monotonic()
            client.async_stream_infer(model, inputs[i % len(inputs)], request_id=str(i))
            i += 1
        for _ in range(concurrency):
            room.acquire()
        client.stop_stream()
    return took


def arrivals(rate, burst, seconds, rng):
    """Poisson; every ten seconds hold two of `burst` times the rate of the other eight."""
    calm, at, out = rate * 10 / (8 + 2 * burst), 0.0, []
    while at < seconds:
        at += rng.expovariate(calm * (burst if at % 10 >= 8 else 1))
        out.append(at)
    return out


def record(given, sent):
    """Of each request the microseconds since the first and its tokens, as the server counts them."""
    lengths = []
    for text in texts(given.words):
        body = json.dumps({"model": given.model, "prompt": text}).encode()
        asked = urllib.request.Request(f"http://{given.http}/tokenize", body, {"Content-Type": "application/json"})
        lengths.append(json.load(urllib.request.urlopen(asked, timeout=10))["count"])
    lines = (f"{(at - sent[0][0]) * 1e6:.0f} {lengths[index]}\n" for at, index in sent)
    pathlib.Path(given.record).write_text("".join(lines))


def open_loop(given):
    rng = random.Random(11)
    inputs = requests(triton_grpc, given.words)
    when = arrivals(given.poisson, given.burst, given.seconds, rng)
    answered, refused, failed, late, left, sent = [], [], [], 0.0, threading.Semaphore(0), []
    with triton_grpc.InferenceServerClient(given.grpc) as client:
        for each in inputs[:20]:
            client.infer(given.model, each)
        start = time.monotonic()

        def send(index, due):
            def done(result, error):
                took = time.monotonic() - due
                if error is None:
                    answered.append(took)
                elif any(code in str(error) for code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")):
                    refused.append(took)
                else:
                    failed.append(str(error))
                left.release()
            client.async_infer(given.model, inputs[index % len(inputs)], done, timeout=given.timeout_ms * 1000)
        for index, at in enumerate(when):
            due = start + at
            while (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            late = max(late, -wait)
            sent.append((time.monotonic(), index % len(inputs)))
            send(index, due)
        hung = sum(not left.acquire(timeout=30) for _ in when)
    if given.record:
        record(given, sent)
    print(f"{len(when)} requests in {given.seconds:.0f} s, {given.burst:.0f}x bursts; sender at most {late * 1e3:.1f} ms late")
    for name, took in (("answered", answered), ("refused", refused)):
        if took:
            p50, p99 = np.percentile(np.array(took) * 1e3, [50, 99])
            print(f"{name:8} {len(took):7}   p50 {p50:7.2f}  p99 {p99:7.2f}  slowest {max(took) * 1e3:7.2f} ms")
    print(f"failed {len(failed)} {failed[:1]}, no answer {hung}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", default="127.0.0.1:8000")
    parser.add_argument("--grpc", default="127.0.0.1:50051")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--poisson", type=float)
    parser.add_argument("--burst", type=float, default=3)
    parser.add_argument("--timeout-ms", type=int, default=50)
    parser.add_argument("--record", help="with --poisson: a file for what was sent when, and how long it was")
    given = parser.parse_args()
    if given.poisson:
        return open_loop(given)
    for concurrency in map(int, given.concurrency.split(",")):
        for name, run in {
            "http": lambda: closed_loop(lambda: triton_http.InferenceServerClient(given.http), triton_http, given.model,
                                        requests(triton_http, given.words), concurrency, given.seconds),
            "grpc": lambda: closed_loop(lambda: triton_grpc.InferenceServerClient(given.grpc), triton_grpc, given.model,
                                        requests(triton_grpc, given.words), concurrency, given.seconds),
            "stream": lambda: stream(given.grpc, given.model, requests(triton_grpc, given.words), concurrency,
                                     given.seconds)}.items():
            took = np.array(run()) * 1e3
            p50, p95, p99 = np.percentile(took, [50, 95, 99])
            print(f"{name:6} {concurrency:3} under way: {len(took) / given.seconds:8.0f}/s   "
                  f"p50 {p50:7.2f}  p95 {p95:7.2f}  p99 {p99:7.2f} ms", flush=True)


if __name__ == "__main__":
    main()
