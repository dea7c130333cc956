"""Checks a trace file against the published Trace Event Format (the JSON that Perfetto's and Chrome's viewers read), and
against what Perfetto's importer demands beyond it: complete events of one thread nest, asynchronous ones come in pairs."""
import collections

METADATA = {"process_name": "name", "process_labels": "labels", "process_sort_index": "sort_index", "thread_name": "name",
            "thread_sort_index": "sort_index"}
ROUNDING_US = 0.002  # times are written to the nanosecond


def problems(trace):
    """What is wrong with it, in words; nothing for a sound file."""
    found = []
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        return ["expected an object with the list traceEvents"]
    if trace.get("displayTimeUnit", "ms") not in ("ms", "ns"):
        found.append(f"displayTimeUnit: expected ms or ns, found {trace['displayTimeUnit']!r}")
    complete, open_pairs = collections.defaultdict(list), collections.Counter()
    for number, event in enumerate(trace["traceEvents"]):
        found += [f"event {number} {event}: {problem}" for problem in problems_of(event)]
        if event.get("ph") == "X":
            complete[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
        elif event.get("ph") in ("b", "e"):
            open_pairs[event["cat"], event["id"], event["name"]] += 1 if event["ph"] == "b" else -1
    found += [f"an asynchronous event without its other end: {key}" for key, left in open_pairs.items() if left]
    for track, spans in complete.items():
        found += [f"thread {track}: {problem}" for problem in overlaps(spans)]
    return found


def problems_of(event):
    def has(key, kinds):
        return isinstance(event.get(key), kinds) and not isinstance(event.get(key), bool)

    kind = event.get("ph")
    if kind not in ("X", "M", "C", "b", "e", "i"):
        yield f"ph: expected one of the kinds in use, found {kind!r}"
        return
    for key, kinds in (("name", str), ("pid", int), ("tid", int)):
        if not (has(key, kinds) or (key == "tid" and kind in "MC" and key not in event)):
            yield f"{key}: expected {kinds.__name__}"
    if kind != "M" and not (has("ts", (int, float)) and event["ts"] >= 0):
        yield "ts: expected microseconds"
    if kind == "X" and not (has("dur", (int, float)) and event["dur"] >= 0):
        yield "dur: expected microseconds"
    if kind in ("b", "e") and not (has("cat", str) and has("id", (int, str))):
        yield "expected cat and id"
    if kind == "C" and not (event.get("args") and all(isinstance(value, (int, float)) for value in event["args"].values())):
        yield "args: expected numbers"
    if kind == "M" and METADATA.get(event.get("name")) not in event.get("args", {}):
        yield f"args: expected {METADATA.get(event.get('name'), 'a known kind of metadata')}"
    if kind == "i" and event.get("s", "t") not in ("g", "p", "t"):
        yield "s: expected g, p or t"


def overlaps(spans):
    """Those that begin inside another and end after it."""
    stack = []
    for begin, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        while stack and stack[-1][0] <= begin + ROUNDING_US:
            stack.pop()
        if stack and end > stack[-1][0] + ROUNDING_US:
            yield f"{name} at {begin} ends at {end}, after {stack[-1][1]} around it, which ends at {stack[-1][0]}"
        stack.append((end, name))
