"""JSON mode, JSON schemas and forced tool calls: what comes back always parses and conforms."""
import json

import jsonschema
import openai
import pytest
from conftest import ask

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city",
    "parameters": {"type": "object", "additionalProperties": False, "required": ["city", "unit"],
                   "properties": {"city": {"type": "string", "maxLength": 12},
                                  "unit": {"enum": ["celsius", "fahrenheit"]}}}}}
TIME = {"type": "function", "function": {
    "name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "integer"}}, "required": ["zone"],
                                       "additionalProperties": False}}}

SCHEMAS = [
    {"type": "object", "additionalProperties": False, "required": ["sum", "even"],
     "properties": {"sum": {"type": "integer"}, "even": {"type": "boolean"}}},
    {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "number", "minimum": -0.25, "exclusiveMaximum": 12.5}, "minItems": 3, "maxItems": 3},
    {"type": "object", "additionalProperties": False, "required": ["who", "tags"],
     "properties": {"who": {"$ref": "#/$defs/name"}, "tags": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/name"}}},
     "$defs": {"name": {"type": "string", "minLength": 1, "maxLength": 5}}},
    {"oneOf": [{"type": "object", "required": ["kind", "at"], "additionalProperties": False,
                "properties": {"kind": {"const": "url"}, "at": {"type": "string", "pattern": "^[\\u4e00-\\u9fa5]{1,3}$"}}},
               {"type": "object", "required": ["kind", "host"], "additionalProperties": False,
                "properties": {"kind": {"const": "host"}, "host": {"type": "string", "format": "hostname"}}}]},
    {"type": "number", "exclusiveMinimum": 1000000000000, "exclusiveMaximum": 1000000000001},
]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_json_schema_conforms(client, schema, temperature):
    answer = ask(client, temperature=temperature, seed=3, max_tokens=1500, response_format={
        "type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}})
    choice = answer.choices[0]
    assert choice.finish_reason == "stop", choice
    jsonschema.validate(json.loads(choice.message.content), schema)


def test_json_object(client, server):
    # A model of ten million parameters would chatter in a string until the context ends, so closing marks are favoured.
    def token(text):
        return server.http().post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"][-1]

    bias = {str(token('"')): 20, str(token("}")): 20}
    for seed in range(6):
        choice = ask(client, temperature=1, seed=seed, max_tokens=600, logit_bias=bias,
                     response_format={"type": "json_object"}, extra_body={"thinking": {"type": "disabled"}}).choices[0]
        assert choice.finish_reason == "stop", choice
        assert isinstance(json.loads(choice.message.content), dict)


def test_json_goes_on_with_a_prefix(client):
    begun = '{"sum": 42, "even":'
    answer = ask(client, messages=[{"role": "user", "content": "What is 12 + 30?"},
                                   {"role": "assistant", "content": begun, "prefix": True}],
                 response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMAS[0]}}, max_tokens=200)
    jsonschema.validate(json.loads(begun + answer.choices[0].message.content), SCHEMAS[0])


def test_schema_that_cannot_be_kept_is_refused(client):
    with pytest.raises(openai.BadRequestError):
        ask(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}})


@pytest.mark.parametrize("schema, keyword", [
    ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"), ({"type": "string", "format": "regex"}, "format"),
    ({"type": "object", "minProperties": 2}, "minProperties"), ({"type": "array", "contains": {"const": 1}}, "contains")])
def test_refusals_name_the_keyword(client, schema, keyword):
    with pytest.raises(openai.BadRequestError, match=keyword):
        ask(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def check_call(call, tools):
    by_name = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    jsonschema.validate(json.loads(call.function.arguments), by_name[call.function.name])


def test_required_tool_call(client):
    answer = ask(client, tools=[WEATHER, TIME], tool_choice="required", max_tokens=1500, parallel_tool_calls=False)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert len(choice.message.tool_calls) == 1
    call = choice.message.tool_calls[0]
    assert call.id.startswith("call_")
    check_call(call, [WEATHER, TIME])


def test_named_tool_call_streamed(client):
    name = arguments = ""
    reason = None
    for chunk in ask(client, tools=[WEATHER, TIME], stream=True, max_tokens=1500, parallel_tool_calls=False,
                     tool_choice={"type": "function", "function": {"name": "get_weather"}}):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert reason == "tool_calls"
    assert name == "get_weather"
    jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])


def test_unknown_named_tool_is_refused(client):
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "nothing"}})
    assert error.value.status_code in (400, 422)


def test_the_loop_of_tools(client):
    """What agents do: a call, its result, the next answer."""
    first = ask(client, tools=[TIME], tool_choice="required", max_tokens=1500, parallel_tool_calls=False).choices[0].message
    call = first.tool_calls[0]
    turns = [{"role": "user", "content": "What is 12 + 30?"}, first.model_dump(exclude_none=True, exclude={"reasoning_content"}),
             {"role": "tool", "tool_call_id": call.id, "content": "noon"}]
    turns[1]["content"] = None
    answer = ask(client, messages=turns, tools=[TIME], max_tokens=300)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    without = ask(client, messages=turns, max_tokens=1)
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens + 50  # the model is told of the tools


def test_strict_tools_leave_text_as_it_was(client):
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    plain = ask(client, tools=[WEATHER], max_tokens=200).choices[0]
    kept = ask(client, tools=[strict], max_tokens=200).choices[0]
    assert (kept.message.content, kept.finish_reason) == (plain.message.content, plain.finish_reason)


def test_strict_schemas_that_cannot_be_kept_are_refused(client):
    exotic = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", "minProperties": 1}}}
    with pytest.raises(openai.BadRequestError, match="minProperties"):
        ask(client, tools=[exotic])
    exotic["function"]["strict"] = False
    assert ask(client, tools=[exotic], max_tokens=5).choices
