"""Frames a second of the console in a headless Chromium while a made-up fleet of 10,000 requests a second is shown, and
the bytes it loads. Prints a table; the aim is 60 frames/s and under 150 KiB.

    .venv/e2e/bin/python bench/console/frames.py [--seconds 5]"""
import argparse
import json
import pathlib
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/e2e"), str(pathlib.Path(__file__).parent)]
import fake_feed  # noqa: E402
from browser import chromium  # noqa: E402

COUNT = """
const done = arguments[arguments.length - 1], seconds = arguments[0];
window.drawn.frames = 0; window.drawn.longest_ms = 0; window.drawn.total_ms = 0;
const times = [];
function tick(now) {
  times.push(now);
  if (now - times[0] < seconds * 1000) return requestAnimationFrame(tick);
  const gaps = times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
  done({fps: (times.length - 1) * 1000 / (now - times[0]), p99_ms: gaps[Math.floor(gaps.length * 0.99)], worst_ms: gaps[gaps.length - 1],
        updates: window.drawn.frames, update_ms: window.drawn.total_ms / Math.max(1, window.drawn.frames), longest_ms: window.drawn.longest_ms});
}
requestAnimationFrame(tick);
"""


def transferred(driver):
    """Bytes over the wire by the browser's own account, the event stream left out."""
    total, paths = 0, {}
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.responseReceived":
            paths[message["params"]["requestId"]] = message["params"]["response"]["url"]
        if message["method"] == "Network.loadingFinished" and "/api/" not in paths.get(message["params"]["requestId"], "/api/"):
            total += message["params"]["encodedDataLength"]
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    server = fake_feed.serve(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with chromium() as driver:
        driver.get(f"http://127.0.0.1:{server.server_address[1]}/console")
        time.sleep(2)
        print(f"transferred at load: {transferred(driver) / 1024:.1f} KiB (aim: under 150)")
        print(f"{'view':<12} {'frames/s':>9} {'p99 gap':>9} {'worst gap':>10} {'updates':>8} {'update':>9} {'longest':>9}")
        for view in ("overview", "engine", "requests", "fleet", "hardware"):
            driver.execute_script(f"location.hash = '#{view}'")
            time.sleep(0.7)
            r = driver.execute_async_script(COUNT, options.seconds)
            print(f"{view:<12} {r['fps']:>9.1f} {r['p99_ms']:>6.1f} ms {r['worst_ms']:>7.1f} ms {r['updates']:>8} {r['update_ms']:>6.2f} ms {r['longest_ms']:>6.1f} ms")


if __name__ == "__main__":
    main()
