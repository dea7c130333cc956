"""The console in a real browser in front of an encoder, a vision model and outcomes by arm: the playgrounds with real answers,
the arms' intervals, accessibility of what they show."""
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from test_console import go, wait

from browser import axe_violations, chromium

ARMS = {"centre": 40, "edge": 4}  # conversions of 40


@pytest.fixture(scope="module")
def fleet(encoders):
    """Embeddings in two arms, with what came of them."""
    http = encoders.http()
    for arm, conversions in ARMS.items():
        for i in range(40):
            answer = http.post("/v1/embeddings", json={"model": "mini", "input": "hello"}, headers={"X-Experiment-Arm": arm})
            said = http.post("/v1/feedback", json={"request_id": answer.headers["X-Request-Id"], "conversion": i < conversions})
            assert said.json()["status"] == "accepted", said.text
    return encoders


@pytest.fixture(scope="module")
def browser(fleet):
    with chromium() as driver:
        driver.get(fleet.url + "/console")
        wait(driver, lambda d: "good" in d.find_element(By.ID, "status").get_attribute("class"))
        yield driver


def playground(driver, tab, model):
    go(driver, "playground")
    driver.find_element(By.ID, "tab-" + tab).click()
    wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#panel option"))
    Select(driver.find_element(By.CSS_SELECTOR, "#panel select")).select_by_value(model)


def test_embeddings_show_their_similarities(fleet, browser):
    playground(browser, "embeddings", "mini")
    texts = browser.find_element(By.ID, "texts")
    texts.clear()
    texts.send_keys("hello world\nhello world\nbye")
    browser.find_element(By.CSS_SELECTOR, "#panel button.main").click()
    wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, "#panel table tbody tr"))
    cells = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
             for row in browser.find_elements(By.CSS_SELECTOR, "#panel table tbody tr")]
    assert [cells[i][i] for i in range(3)] == ["1.000"] * 3 and cells[0][1] == cells[1][0] == "1.000"
    vectors = [item["embedding"] for item in fleet.http().post(
        "/v1/embeddings", json={"model": "mini", "input": ["hello world", "bye"]}).json()["data"]]
    dot = sum(a * b for a, b in zip(*vectors))
    norms = [sum(a * a for a in vector) ** 0.5 for vector in vectors]
    assert float(cells[0][2]) == pytest.approx(dot / (norms[0] * norms[1]), abs=0.002)
    assert axe_violations(browser) == []


def test_a_picture_is_classified(fleet, browser, tmp_path):
    from PIL import Image
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((48, 64)).convert("RGB").save(picture)
    playground(browser, "images", "eyes")
    browser.find_element(By.ID, "picture").send_keys(str(picture))
    browser.find_element(By.CSS_SELECTOR, "#panel button.main").click()
    wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, "#panel dl dt, #panel .said.error"))
    shown = [label.text for label in browser.find_elements(By.CSS_SELECTOR, "#panel dl dt")]
    answer = fleet.http().post("/v1/classify", data={"model": "eyes", "top_k": "5"}, files={"image": picture.read_bytes()}).json()
    assert shown == [item["label"] for item in answer["data"][0]["scores"]]
    assert axe_violations(browser) == []


def test_outcomes_by_arm_tell_what_is_apart(browser):
    go(browser, "business")
    # Outcomes become readings once an interval of telemetry, ten seconds.
    rows = wait(browser, lambda d: [row for row in d.find_elements(By.CSS_SELECTOR, ".arms .card:not([hidden]) tbody tr") if row.text], 40)
    assert len(rows) == len(ARMS), "conversion alone: nothing else was told, and there are no prices"
    told = {row.find_element(By.TAG_NAME, "th").text: row.text for row in rows}
    assert set(told) == set(ARMS)
    assert "100.0 %" in told["centre"] and "10.0 %" in told["edge"]
    assert "intervals apart" in told["edge"] and "intervals apart" not in told["centre"]
    Select(browser.find_element(By.ID, "outcome-window")).select_by_value("24h")
    assert "intervals apart" in browser.find_element(By.CSS_SELECTOR, ".arms").text
    assert axe_violations(browser) == []
