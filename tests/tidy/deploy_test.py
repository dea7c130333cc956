"""deploy/: no panel, rule or alert asks for a metric that the program does not have; every alert has a runbook and a test
that fires it; the dashboards are what their generator writes; promtool (Debian: prometheus) finds nothing wrong."""
import importlib.util
import json
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\b((?:spillway|process)_[a-z0-9_]+)\b(?=[\s{)\[]|$)")
SUFFIXES = ("_bucket", "_count", "_sum")


def metrics():
    names = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        found = re.match(r"\| `(\w+)` \| (\w+) \|", line)
        if found:
            names[found[1]] = found[2]
    return names


def generator():
    spec = importlib.util.spec_from_file_location("generate", DEPLOY / "grafana/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unknown_in(expression, known):
    # What stands in a list of labels or before '=' is no metric.
    stripped = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", expression)
    stripped = re.sub(r"\{[^}]*\}", "", stripped)
    for name in METRIC.findall(stripped):
        base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        if known.get(base) == "histogram" and name != base:
            continue
        if name not in known:
            yield name


def expressions_of_rules(path):
    for line in path.read_text().splitlines():
        found = re.match(r"\s+expr: (.*)", line)
        if found:
            yield found[1]


class Deploy(unittest.TestCase):
    def test_dashboards_ask_only_for_metrics_that_exist(self):
        known, wrong, asked = metrics(), [], 0
        for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
            for panel in json.loads(path.read_text())["panels"]:
                for target in panel["targets"]:
                    asked += 1
                    wrong += [f"{path.name}: {panel['title']}: {name}" for name in unknown_in(target["expr"], known)]
        self.assertEqual(wrong, [])
        self.assertGreater(asked, 20)

    def test_the_check_finds_a_metric_that_does_not_exist(self):
        known = {"spillway_a_seconds": "histogram", "spillway_b_total": "counter"}
        self.assertEqual(list(unknown_in("rate(spillway_a_seconds_bucket{x=\"1\"}[5m]) / spillway_b_total", known)), [])
        self.assertEqual(list(unknown_in("sum by (spillway_label) (spillway_c{y=\"2\"}) + spillway_b_total_count", known)),
                         ["spillway_c", "spillway_b_total_count"])

    def test_service_dashboard_is_what_the_generator_writes(self):
        self.assertEqual((DEPLOY / "grafana/dashboards/service.json").read_text(), generator().render()["service.json"],
                         "run deploy/grafana/generate.py")

    def test_rules_ask_only_for_metrics_that_exist(self):
        known, wrong = metrics(), []
        for path in sorted((DEPLOY / "prometheus/rules").glob("*.yml")):
            for expression in expressions_of_rules(path):
                wrong += [f"{path.name}: {name}" for name in unknown_in(expression, known)]
        self.assertEqual(wrong, [])

    def test_alerts_use_recorded_series_that_are_recorded(self):
        recorded = set(re.findall(r"- record: (\S+)", (DEPLOY / "prometheus/rules/recording.yml").read_text()))
        used = set(re.findall(r"\b\w+:spillway_\w+:\w+", (DEPLOY / "prometheus/rules/alerts.yml").read_text()))
        self.assertEqual(used - recorded, set())
        self.assertTrue(used)

    def test_every_alert_has_a_runbook_and_a_test(self):
        alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus/rules/alerts.yml").read_text())
        tests = (DEPLOY / "prometheus/tests/alerts_test.yml").read_text()
        self.assertGreater(len(alerts), 10)
        for alert in alerts:
            runbook = ROOT / f"docs/runbooks/{alert}.md"
            self.assertTrue(runbook.is_file(), runbook)
            self.assertIn("## Do", runbook.read_text())
            self.assertRegex(tests, rf"alertname: {alert}\n        eval_time: \w+\n        exp_alerts:")
        self.assertEqual({path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}, set(alerts))

    def test_promtool_fires_every_alert(self):
        for command in (["check", "config", "prometheus.yml"], ["test", "rules", "tests/alerts_test.yml"]):
            done = subprocess.run(["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
