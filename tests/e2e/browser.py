"""A real headless Chromium (Debian's chromium and chromium-driver), driven by Selenium. Ubuntu's packages only fetch a snap,
which a container cannot run: tests that want a browser are skipped there."""
import contextlib
import functools
import importlib.resources
import shutil
import subprocess

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service


@functools.cache
def installed():
    """The paths of a browser and its driver that run, or None."""
    paths = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if all(path and subprocess.run([path, "--version"], capture_output=True).returncode == 0 for path in paths):
        return paths
    return None


@contextlib.contextmanager
def chromium(width=1440, height=1000, dark=False, language="en"):
    if not installed():
        pytest.skip("no Chromium that runs, with its chromedriver")
    browser, chromedriver = installed()
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                 f"--window-size={width},{height}", f"--lang={language}", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    if dark:
        options.add_argument("--blink-settings=preferredColorScheme=0")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = browser
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_script_timeout(30)
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                               {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
        yield driver
    finally:
        driver.quit()


def axe_violations(driver, impacts=("serious", "critical")):
    """What axe-core finds on the page as it is: [(rule, first element)]. The wheel that brings it is meant for another
    driver; the script is the same."""
    script = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    driver.execute_script(script)
    found = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"][:300]) for v in found["violations"] if v["impact"] in impacts]
