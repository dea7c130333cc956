"""Measures the gateway beside HAProxy and nginx as bare reverse proxies, all in one run, against fake upstreams.

    python3 bench/gateway/measure.py [--build build/release] [--only latency,rate,...] [--seconds 5] [--cores 0,1]
                                     [--rounds 5] [--peers haproxy,nginx]

Prints a Markdown table, one row a figure and proxy; the last rows are the faults, which are tests (tests/e2e) and run here
with all their repeats. HAProxy and nginx are measured when they are installed (Debian packages haproxy, nginx-light), the
routing row when routing_bench is built. CPU per request is the proxy's own, from /proc, so that the load and the fake on
the same machine do not count; where two proxies are compared their rounds alternate, and medians of rounds are told.
With --cores the proxies have those cores for themselves, and the fakes and the load all others."""
import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

from cores import Cores  # noqa: E402
TICKS = os.sysconf("SC_CLK_TCK")


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
    def __init__(self, build, seconds, cores, rounds, peers):
        self.build, self.seconds, self.cores = pathlib.Path(build), seconds, cores
        self.rounds, self.peers = rounds, peers
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
        process = self.spawn(*self.cores.confined(self.build / "spillway", "serve", "--config", config), stdout=subprocess.DEVNULL)
        wait_port(port)
        return port, process

    def haproxy(self, upstream):
        port = free_port()
        config = self.folder / "haproxy.cfg"
        config.write_text(f"global\n  maxconn 8000\n  nbthread 1\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n"
                          f"  timeout connect 5s\n  option http-no-delay\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
                          f"backend b\n  server s 127.0.0.1:{upstream}\n")
        process = self.spawn(*self.cores.confined("haproxy", "-f", config, "-db"))
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
        process = self.spawn(*self.cores.confined("nginx", "-c", config, "-p", self.folder))
        wait_port(port)
        return port, process

    def proxies(self, upstream, **options):
        yield "spillway", *self.spillway([(upstream, {})], **options)
        if "haproxy" in self.peers and shutil.which("haproxy"):
            yield "haproxy", *self.haproxy(upstream)
        if "nginx" in self.peers and shutil.which("nginx"):
            yield "nginx", *self.nginx(upstream)

    def load(self, port, *flags, reference=None):
        command = [self.build / "gateway_load", "--to", f"127.0.0.1:{port}", *flags]
        if reference:
            command += ["--reference", f"127.0.0.1:{reference}"]
        return json.loads(subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout)


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(process, what="VmRSS", file="status"):
    for line in pathlib.Path(f"/proc/{process.pid}/{file}").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    return 0


def memory_text(process):
    return (f"Rss {memory_mib(process):.1f} MiB (Pss {memory_mib(process, 'Pss', 'smaps_rollup'):.1f}, "
            f"anonymous {memory_mib(process, 'RssAnon'):.1f})")


def median(values):
    return sorted(values)[len(values) // 2]


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
    for _ in range(2 * bench.rounds - 1):
        for name in names:
            runs[name].append(bench.load(ports[name], "--requests", 3000, reference=fake))
    best = {name: {q: median([r["latency_us"][q] for r in runs[name]]) for q in ("p50", "p99")} for name in names}
    for name in names:
        added = {q: best[name][q] - best["direct"][q] for q in best[name]}
        assert all(clean(r) for r in runs[name])
        yield f"added latency, 1 connection, {name}", f"p50 {added['p50']:.0f} µs, p99 {added['p99']:.0f} µs (whole: {best[name]['p50']:.0f} and {best[name]['p99']:.0f})"


def rate(bench):
    """As many 1 KiB requests as 64 connections make: requests for each second of the proxy's own CPU."""
    fake = bench.fake("--healthy", "--threads", bench.cores.fake_threads())
    proxies = list(bench.proxies(fake))
    seen = {name: [] for name, _, _ in proxies}
    for round_ in range(bench.rounds):
        for name, port, process in proxies:
            if round_ == 0:
                bench.load(port, "--connections", 64, "--seconds", 1)
            cpu = cpu_seconds(process)
            result = bench.load(port, "--connections", 64, "--seconds", bench.seconds, reference=fake)
            spent = cpu_seconds(process) - cpu
            assert clean(result), result
            seen[name].append((result["good"] / spent, result["per_s"]))
    for name, figures in seen.items():
        each = median([figure for figure, _ in figures])
        yield (f"requests a CPU second, {name}", f"{each:,.0f}, {1e6 / each:.1f} µs each ({min(f for f, _ in figures):,.0f} to "
               f"{max(f for f, _ in figures):,.0f} in {bench.rounds} rounds; {median([r for _, r in figures]):,.0f} a second of the clock)")


def streams(bench):
    """About 500 streams under way: 100 begin each second, of 20 tokens 250 ms apart. Time from sending to the first token."""
    fake = bench.fake("--healthy", "--token-us", "250000", "--threads", bench.cores.fake_threads())
    reference = bench.fake("--healthy")  # says the same, at once
    flags = ("--stream", "--connections", 700, "--rate", 100, "--seconds", max(8, bench.seconds))
    ports = [("direct", fake)] + [(name, port) for name, port, _ in bench.proxies(fake)]
    runs = {name: [] for name, _ in ports}
    for _ in range(min(3, bench.rounds)):
        for name, port in ports:
            result = bench.load(port, *flags, reference=reference)
            assert clean(result), (name, result)
            runs[name].append(result["first_us"])
    whole = {name: {q: median([r[q] for r in runs[name]]) for q in ("p50", "p99")} for name in runs}
    for name in runs:
        added = {q: whole[name][q] - whole["direct"][q] for q in ("p50", "p99")}
        yield (f"added time to first token, 500 streams, {name}",
               f"p50 {added['p50']:.0f} µs, p99 {added['p99']:.0f} µs (whole: {whole[name]['p50'] / 1000:.2f} and {whole[name]['p99'] / 1000:.2f} ms)")


def many(bench):
    """2,000 streams at once, every byte compared with the upstream's own."""
    fake = bench.fake("--healthy", "--token-us", "250000", "--threads", bench.cores.fake_threads())
    for name, port, process in bench.proxies(fake):
        cpu = cpu_seconds(process)
        result = bench.load(port, "--stream", "--connections", 2000, "--requests", 6000, reference=fake)
        yield (f"2,000 streams at once, {name}", f"{result['good']} of 6000 byte for byte, {result['wrong']} wrong, {result['broken']} broken, "
               f"{result['refused']} refused; {(cpu_seconds(process) - cpu) / 6000 * 1e6:.0f} µs of CPU each; "
               f"peak memory {memory_mib(process, 'VmHWM'):.0f} MiB")


def memory(bench):
    """Without a model and without requests; then after some."""
    fake = bench.fake("--healthy")
    for name, port, process in bench.proxies(fake):
        time.sleep(2)
        idle = memory_text(process)
        bench.load(port, "--connections", 64, "--seconds", 2)
        yield f"idle memory, {name}", f"{idle}; after 64 connections {memory_text(process)}"


def episode(bench, rate_all, high_share, deadline_ms, seconds):
    """An upstream of 8 places of 20 ms (400 requests a second) is asked for rate_all a second."""
    fake = bench.fake("--slots", 8, "--work-us", 20000, "--queue", 64, "--threads", 2)
    port, _ = bench.spillway([(fake, {"concurrency_max": 12})], extra="  queue_requests_max: 4096")
    loads = []
    for share, priority in ((high_share, "high"), (1 - high_share, "low")):
        if share <= 0:
            continue
        command = [bench.build / "gateway_load", "--to", f"127.0.0.1:{port}", "--rate", rate_all * share, "--seconds", seconds,
                   "--connections", 4000, "--header", f"X-Priority: {priority}", "--header", f"X-Request-Deadline: {deadline_ms}"]
        loads.append((priority, subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)))
    return {priority: json.loads(process.communicate()[0]) for priority, process in loads}


def overload(bench):
    """Twice what the upstream can do: a deadline that a queue can meet, one that it cannot, and much low priority."""
    capacity, seconds = 400, max(8, bench.seconds)
    plateau = episode(bench, capacity * 0.95, 1, 30000, seconds)["high"]["per_s"]
    for title, high_share, deadline_ms in (("70% high, deadline 30 s", 0.7, 30000), ("70% high, deadline 2 s", 0.7, 2000),
                                           ("40% high, deadline 2 s", 0.4, 2000), ("40% high, deadline 0.5 s", 0.4, 500)):
        result = episode(bench, capacity * 2, high_share, deadline_ms, seconds)
        total = sum(r["good"] for r in result.values()) / max(r["seconds"] for r in result.values())
        for name, r in result.items():
            asked = r["good"] + r["refused"] + r["wrong"] + r["broken"]
            told = f"{r['good'] / asked:.2%} of {asked} answered"
            if r["good"]:
                told += f", p99 {r['latency_us']['p99'] / 1e6:.2f} s"
            if r["refused"]:
                told += f"; {r['refused']} refused after p50 {r['refused_us']['p50'] / 1e3:.0f}, p99 {r['refused_us']['p99'] / 1e3:.0f} ms"
            if r["wrong"] or r["broken"]:
                told += f"; {r['wrong']} wrong, {r['broken']} broken"
            yield f"2x overload for {seconds:.0f} s, {title}: {name} priority", told
        yield f"2x overload, {title}: goodput", f"{total:.0f} a second, {total / plateau:.1%} of the plateau ({plateau:.0f})"


def routing(bench):
    """Decisions alone, 100 upstreams: cores for 1,000 requests a second."""
    program = bench.build / "routing_bench"
    if not program.exists():
        yield "routing decisions", f"not measured: build the target {program.name}"
        return
    for line in subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 7 and cells[0] != "work":
            yield f"routing with 100 upstreams: {cells[0]}", f"{float(cells[2]) / 1000:.2f} cores at 1,000 requests/s (mean {cells[2]} µs, p99 {cells[4]})"


def faults(bench):
    """Each fault with its repeats, and the longer table: tests, each of which checks outcome, time, attempts and usage."""
    python = os.environ.get("SPILLWAY_E2E_PYTHON", str(ROOT / ".venv/e2e/bin/python"))
    environment = {**os.environ, "SPILLWAY_BINARY": str((bench.build / "spillway").absolute()), "SPILLWAY_FAULT_REPEATS": "50"}
    for title, files in (("16 faults, 50 repeats each", ["test_gateway.py"]),
                         ("the longer table", ["test_gateway_survival.py", "test_gateway_pressure.py", "test_gateway_operations.py", "test_gateway_storm.py"])):
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *[str(ROOT / "tests/e2e" / file) for file in files]]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        lines = [line for line in ended.stdout.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
        yield title, (lines or ended.stderr.splitlines() or ["no answer"])[-1].strip("= ")


ALL = {f.__name__: f for f in (latency, rate, streams, many, memory, overload, routing, faults)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--cores", help=Cores.HELP)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of latency and rate; of streams, at most 3")
    parser.add_argument("--peers", default="haproxy,nginx")
    options = parser.parse_args()
    cores = Cores(options.cores)
    print("| figure | measured |\n|---|---|")
    for name in options.only.split(","):
        bench = Bench(options.build, options.seconds, cores, options.rounds, options.peers.split(","))
        try:
            for row in ALL[name](bench):
                print("| " + " | ".join(row) + " |", flush=True)
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
