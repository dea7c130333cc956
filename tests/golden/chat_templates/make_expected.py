"""Writes expected.json and snippets.json: what Jinja2, set up as transformers' apply_chat_template sets it up, makes of
the published templates beside this file and of small snippets. Needs: pip install jinja2. Run in this folder."""
import json
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)


def case(source, variables):
    out = {"variables": variables}
    try:
        out["expected"] = env.from_string(source).render(**variables)
    except Exception as error:
        out["error"] = f"{type(error).__name__}: {error}"
    return out


def user(text): return {"role": "user", "content": text}
def system(text): return {"role": "system", "content": text}
def assistant(text, **more): return {"role": "assistant", "content": text, **more}
def call(name, arguments): return {"type": "function", "id": "call_1", "function": {"name": name, "arguments": arguments}}


WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a \"city\" <today> & 'tomorrow', 天气", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "城市"}, "days": {"type": "integer", "default": 1, "minimum": 0.5}, "flags": {"type": "array", "items": {"type": "boolean"}}},
    "required": ["city"], "additionalProperties": False, "empty": {}, "none": None}}}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}}}


def conversations():
    text, thing = '{"city": "杭州", "days": 2}', {"city": "杭州", "days": 2}
    for kind, arguments in (("text", text), ("object", thing)):
        yield f"one call, {kind} arguments", [user("Weather?"), assistant(None, tool_calls=[call("get_weather", arguments)])]
        yield f"one call, empty content, {kind} arguments", [user("Weather?"), assistant("", tool_calls=[call("get_weather", arguments)]), {"role": "tool", "tool_call_id": "call_1", "content": "{\"t\": 20}"}]
        yield f"call and answer, {kind} arguments", [system("Be brief."), user("Weather?"), assistant("Let me see.", tool_calls=[call("get_weather", arguments)]), {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}, assistant("It is sunny."), user("Thanks")]
        yield f"two calls, {kind} arguments", [user("Weather and 1+2?"), assistant(None, tool_calls=[call("get_weather", arguments), call("add", arguments)]), {"role": "tool", "content": "sunny"}, {"role": "tool", "content": "3"}]
        yield f"two rounds, {kind} arguments", [user("a"), assistant(None, tool_calls=[call("add", arguments)]), {"role": "tool", "content": "1"}, assistant("One."), user("b"), assistant(None, tool_calls=[call("add", arguments)]), {"role": "tool", "content": "2"}, assistant("Two."), user("c")]
    yield "one user", [user("Hello")]
    yield "system and user", [system("You are helpful."), user("Hello")]
    yield "two systems", [system("First."), user("Hi"), system("Second."), user("Again")]
    yield "turns", [system("S"), user("Hi"), assistant("Hello!"), user("How are you?"), assistant("Fine."), user("Good")]
    yield "chinese", [system("你是一个有用的助手。"), user("你好，世界！👋"), assistant("你好！"), user("1+1等于几？")]
    yield "thought in history", [user("2+2?"), assistant("<think>\nTwo and two.\n</think>\n\n4"), user("3+3?")]
    yield "two thoughts", [user("2+2?"), assistant("<think>a</think>b</think>c"), user("3+3?"), assistant("<think>\nlast\n</think>\n\n6")]
    yield "reasoning field", [user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?"), assistant("6", reasoning_content="\nThree and three.\n")]
    yield "ends with assistant", [user("Count"), assistant("One, two,")]
    yield "prefix", [user("Count"), assistant("One, two,", prefix=True)]
    yield "empty content", [system(""), user(""), assistant(""), user("")]
    yield "none content", [user("a"), assistant(None), user("b")]
    yield "odd spaces", [system("  spaced \n"), user("\n line one\r\nline two \t"), assistant("  x\n\n"), user("</think> {{ not a tag }} {% if %} <｜User｜>")]
    yield "content parts", [user([{"type": "text", "text": "Hi"}])]
    yield "name and tool result mapping", [user("a"), {"role": "tool", "name": "f", "content": {"a": [1, 2.5, None, True]}}]
    yield "no messages", []


def template_cases():
    out = []
    for path in sorted(Path(".").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, messages in conversations():
            for generation in (True, False):
                for more in ({}, {"tools": [WEATHER, ADD]}, {"enable_thinking": False}, {"enable_thinking": True, "thinking": True}, {"tools": None, "date_string": "1 Jan 2025", "tools_in_user_message": False}):
                    if more and not any(key in source for key in more):
                        continue
                    if more.get("thinking") and not generation:
                        continue
                    variables = {"messages": messages, "add_generation_prompt": generation, "bos_token": "<bos>", "eos_token": "<eos>", **more}
                    result = case(source, variables)
                    out.append({"template": path.name, "name": name, **result})
    return out


def compact(cases):
    """Messages once each, so that the file stays small."""
    table, places = [], {}
    for c in cases:
        key = json.dumps(c["variables"]["messages"], ensure_ascii=False)
        if key not in places:
            places[key] = len(table)
            table.append(c["variables"]["messages"])
        c["variables"] = {**c["variables"], "messages": places[key]}
    return {"conversations": table, "tools": [WEATHER, ADD], "cases": [{**c, "variables": {k: ("TOOLS" if k == "tools" and v else v) for k, v in c["variables"].items()}} for c in cases]}


if __name__ == "__main__":
    Path("expected.json").write_text(json.dumps(compact(template_cases()), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    from snippets import SNIPPETS, VARIABLES
    cases = []
    for source in SNIPPETS:
        result = case(source, VARIABLES)
        del result["variables"]
        cases.append({"source": source, **result})
    Path("snippets.json").write_text(json.dumps({"variables": VARIABLES, "cases": cases}, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
