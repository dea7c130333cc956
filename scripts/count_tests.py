"""Prints 'TESTS FAILURES' summed over JUnit-style reports: count_tests.py FILE_OR_FOLDER [--gtest]."""
import pathlib
import sys
import xml.etree.ElementTree as tree


def reports(path):
    path = pathlib.Path(path)
    if path.is_dir():
        return sorted(path.glob("*.xml"))
    return [path] if path.exists() else []


def main():
    tests = failures = 0
    for report in reports(sys.argv[1]):
        root = tree.parse(report).getroot()
        for suite in [root] if root.tag == "testsuite" else root.findall("testsuite"):
            tests += int(suite.get("tests", 0)) - int(suite.get("skipped", 0))
            failures += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    print(tests, failures)


main()
