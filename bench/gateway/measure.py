"""Measures the gateway beside HAProxy and nginx as bare reverse proxies, all in one run, against fake upstreams.

    python3 bench/gateway/measure.py [--build build/release] [--only latency,rate,...] [--seconds 5]

Prints a Markdown table. HAProxy and nginx are measured when they are installed (Debian packages haproxy, nginx-light).
CPU per request is the proxy's own, from /proc, so that the load and the fake on the same machine do not count."""
import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_port(port, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


class Bench:
    def __init__(self, build, seconds):
        self.build, self.seconds = pathlib.Path(build), seconds
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gateway-bench-"))
        self.started = []

    def spawn(self, *command, **options):
        process = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL, **options)
        self.started.append(process)
        return process

    def stop(self):
        for process in self.started:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fake(self, *flags):
        process = self.spawn(self.build / "fake_upstream", *flags, stdout=subprocess.PIPE, text=True)
        return int(process.stdout.readline())

    def spillway(self, upstreams, threads=1, extra=""):
        port = free_port()
        config = self.folder / f"gateway-{port}.yaml"
        lines = ["model: {path: none}", f"network: {{host: 127.0.0.1, port: {port}, metrics_port: 0, max_workers: {threads}}}",
                 "limits: {connections: 20000}", "log: {level: error}", "gateway:", extra, "  upstreams:"]
        for i, (upstream, fields) in enumerate(upstreams):
            lines += [f"    - name: u{i}", f"      base_url: http://127.0.0.1:{upstream}"]
            lines += [f"      {key}: {value}" for key, value in {"concurrency_max": 20000, **fields}.items()]
        config.write_text("\n".join(line for line in lines if line) + "\n")
        process = self.spawn(self.build / "spillway", "serve", "--config", config, stdout=subprocess.DEVNULL)
        wait_port(port)
        return port, process

    def haproxy(self, upstream):
        port = free_port()
        config = self.folder / "haproxy.cfg"
        config.write_text(f"global\n  maxconn 8000\n  nbthread 1\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n"
                          f"  timeout connect 5s\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
                          f"backend b\n  server s 127.0.0.1:{upstream}\n")
        process = self.spawn("haproxy", "-f", config, "-db")
        wait_port(port)
        return port, process

    def nginx(self, upstream):
        port = free_port()
        config = self.folder / "nginx.conf"
        config.write_text(f"""daemon off; master_process off; pid {self.folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 20000; }}
http {{ access_log off; client_body_buffer_size 64k; client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p;
fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s; keepalive_requests 100000000;
upstream u {{ server 127.0.0.1:{upstream}; keepalive 4000; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}
""")
        process = self.spawn("nginx", "-c", config, "-p", self.folder)
        wait_port(port)
        return port, process

    def proxies(self, upstream, **options):
        yield "spillway", *self.spillway([(upstream, {})], **options)
        if shutil.which("haproxy"):
            yield "haproxy", *self.haproxy(upstream)
        if shutil.which("nginx"):
            yield "nginx", *self.nginx(upstream)

    def load(self, port, *flags, reference=None):
        command = [self.build / "gateway_load", "--to", f"127.0.0.1:{port}", *flags]
        if reference:
            command += ["--reference", f"127.0.0.1:{reference}"]
        return json.loads(subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout)


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(process, what="VmRSS"):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    return 0


def clean(result):
    return result["wrong"] == 0 and result["broken"] == 0 and result["refused"] == 0


def latency(bench):
    """One connection, 1 KiB bodies: what the hop adds to the direct way, at p50 and p99, runs interleaved."""
    fake = bench.fake("--healthy")
    proxies = list(bench.proxies(fake))
    names = ["direct"] + [name for name, _, _ in proxies]
    ports = dict(direct=fake, **{name: port for name, port, _ in proxies})
    runs = {name: [] for name in names}
    for name in names:
        bench.load(ports[name], "--requests", 500)
    for _ in range(5):
        for name in names:
            runs[name].append(bench.load(ports[name], "--requests", 3000, reference=fake))
    best = {name: {q: sorted(r["latency_us"][q] for r in runs[name])[2] for q in ("p50", "p99")} for name in names}
    for name in names:
        added = {q: best[name][q] - best["direct"][q] for q in best[name]}
        assert all(clean(r) for r in runs[name])
        yield f"added latency, 1 connection, {name}", f"p50 {added['p50']:.0f} µs, p99 {added['p99']:.0f} µs (whole: {best[name]['p50']:.0f} and {best[name]['p99']:.0f})"


def rate(bench):
    """As many 1 KiB requests as 64 connections make: requests for each second of the proxy's own CPU."""
    fake = bench.fake("--healthy", "--threads", max(1, CPUS // 4))
    for name, port, process in bench.proxies(fake):
        bench.load(port, "--connections", 64, "--seconds", 1)
        began, cpu = time.monotonic(), cpu_seconds(process)
        result = bench.load(port, "--connections", 64, "--seconds", bench.seconds, reference=fake)
        spent = cpu_seconds(process) - cpu
        assert clean(result), result
        yield f"requests a CPU second, {name}", f"{result['good'] / spent:,.0f} ({result['per_s']:,.0f} a second at {spent / (time.monotonic() - began):.0%} of a core)"


def streams(bench):
    """About 500 streams under way: 100 begin each second, of 20 tokens 250 ms apart. Time from sending to the first token."""
    fake = bench.fake("--healthy", "--token-us", "250000", "--threads", max(1, CPUS // 4))
    flags = ("--stream", "--connections", 700, "--rate", 100, "--seconds", max(10, bench.seconds))
    rows = [("direct", bench.load(fake, *flags, reference=fake))]
    for name, port, _ in bench.proxies(fake):
        rows.append((name, bench.load(port, *flags, reference=fake)))
    base = rows[0][1]["first_us"]
    for name, result in rows:
        assert clean(result), (name, result)
        added = {q: result["first_us"][q] - base[q] for q in ("p50", "p99")}
        whole = result["first_us"]
        yield (f"added time to first token, 500 streams, {name}",
               f"p50 {added['p50']:.0f} µs, p99 {added['p99']:.0f} µs (whole: {whole['p50'] / 1000:.2f} and {whole['p99'] / 1000:.2f} ms)")


def many(bench):
    """2,000 streams at once, every byte compared with the upstream's own."""
    fake = bench.fake("--healthy", "--token-us", "250000", "--threads", max(1, CPUS // 4))
    port, process = bench.spillway([(fake, {})])
    result = bench.load(port, "--stream", "--connections", 2000, "--requests", 6000, reference=fake)
    yield "2,000 streams at once", f"{result['good']} of 6000 byte for byte, {result['wrong']} wrong, {result['broken']} broken, {result['refused']} refused; peak memory {memory_mib(process, 'VmHWM'):.0f} MiB"


def memory(bench):
    fake = bench.fake("--healthy")
    port, process = bench.spillway([(fake, {})])
    time.sleep(1)
    idle = memory_mib(process)
    bench.load(port, "--connections", 64, "--seconds", 2)
    after = memory_mib(process)
    yield "idle memory without a model", f"{idle:.1f} MiB ({after:.1f} MiB after {64} connections)"


def overload(bench):
    """An upstream of 8 places of 20 ms (400 requests a second) is asked for twice that, 30% of it at low priority."""
    capacity = 400
    flags = ("--slots", 8, "--work-us", 20000, "--queue", 64, "--threads", 2)
    seconds = max(8, bench.seconds)

    def episode(rate_all, high_share):
        fake = bench.fake(*flags)
        port, _ = bench.spillway([(fake, {"concurrency_max": 12})], extra="  queue_requests_max: 4096")
        loads = []
        for share, priority in ((high_share, "high"), (1 - high_share, "low")):
            if share <= 0:
                continue
            command = [bench.build / "gateway_load", "--to", f"127.0.0.1:{port}", "--rate", rate_all * share, "--seconds", seconds,
                       "--connections", 4000, "--header", f"X-Priority: {priority}", "--header", "X-Request-Deadline: 30000"]
            loads.append((priority, subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)))
        return {priority: json.loads(process.communicate()[0]) for priority, process in loads}

    plateau = episode(capacity * 0.95, 1)["high"]["per_s"]
    result = episode(capacity * 2, 0.7)
    asked = {name: capacity * 2 * share * seconds for name, share in (("high", 0.7), ("low", 0.3))}
    total = sum(r["good"] for r in result.values()) / max(r["seconds"] for r in result.values())
    for name, r in result.items():
        answered = r["good"] / (r["good"] + r["refused"] + r["wrong"] + r["broken"])
        p99 = r["latency_us"]["p99"] / 1e6 if r["latency_us"] else 0
        yield f"2x overload for {seconds} s, {name} priority", f"{answered:.2%} of {asked[name]:.0f} answered, p99 {p99:.1f} s"
    yield "2x overload, goodput", f"{total:.0f} a second, {total / plateau:.1%} of the plateau ({plateau:.0f})"


ALL = {f.__name__: f for f in (latency, rate, streams, many, memory, overload)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    print("| figure | measured |\n|---|---|")
    for name in options.only.split(","):
        bench = Bench(options.build, options.seconds)
        try:
            for row in ALL[name](bench):
                print("| " + " | ".join(row) + " |", flush=True)
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
