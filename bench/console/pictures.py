"""Takes the pictures of docs/console that show a fleet, from the made-up feed: run it when the console changes.

    .venv/e2e/bin/python bench/console/pictures.py [--into docs/console]"""
import argparse
import pathlib
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/e2e"), str(pathlib.Path(__file__).parent)]
import fake_feed  # noqa: E402
from browser import chromium  # noqa: E402

PICTURES = {"overview": "overview", "engine": "engine", "fleet": "fleet", "outcomes": "business"}


def take(driver, address, view, file, chinese=False):
    driver.get(address)
    if chinese:
        driver.find_element("tag name", "body").send_keys("l")
    driver.execute_script(f"location.hash = '#{view}'")
    time.sleep(3)
    driver.save_screenshot(str(file))
    print(file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=pathlib.Path, default=ROOT / "docs/console")
    options = parser.parse_args()
    server = fake_feed.serve(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/console"
    with chromium() as driver:
        for name, view in PICTURES.items():
            take(driver, address, view, options.into / f"{name}.png")
    with chromium(width=390, height=844, dark=True) as driver:
        take(driver, address, "overview", options.into / "phone.png", chinese=True)
    server.shutdown()


if __name__ == "__main__":
    main()
