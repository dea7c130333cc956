"""Anthropic's messages through the official package."""
import json

import anthropic
import pytest
from conftest import MODEL


@pytest.fixture(scope="module")
def claude(server):
    return server.anthropic()


def say(claude, **options):
    options.setdefault("model", MODEL)
    # In the body rather than by name: newer versions of the package have dropped the parameter.
    return dict(max_tokens=400, extra_body={"temperature": 0}, messages=[{"role": "user", "content": "What is 12 + 30?"}], **options)


def test_message(claude):
    message = claude.messages.create(**say(claude))
    kinds = [block.type for block in message.content]
    assert kinds == ["thinking", "text"]
    assert message.content[1].text.strip() == "12 + 30 = 42"
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0


def test_stream(claude):
    with claude.messages.stream(**say(claude)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text.strip() == "12 + 30 = 42"
    assert final.stop_reason == "end_turn"
    assert [block.type for block in final.content] == ["thinking", "text"]


def test_stop_sequence(claude):
    message = claude.messages.create(**say(claude, stop_sequences=[" = "]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " = ")


def test_forced_tool(claude):
    tool = {"name": "pick", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
                                             "additionalProperties": False}}
    message = claude.messages.create(**{**say(claude, tools=[tool], tool_choice={"type": "tool", "name": "pick"}), "max_tokens": 1500})
    assert message.stop_reason == "tool_use"
    call = [block for block in message.content if block.type == "tool_use"][0]
    assert call.name == "pick" and isinstance(call.input["n"], int)


def test_count_tokens(claude):
    counted = claude.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "What is 12 + 30?"}])
    assert counted.input_tokens == claude.messages.create(**say(claude)).usage.input_tokens


def test_claude_names_mean_the_default_model(claude):
    assert claude.messages.create(**say(claude, model="claude-sonnet-4-5")).content


def test_errors(claude):
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**say(claude, model="gpt-9"))
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model=MODEL, max_tokens=10, messages=[])


def test_models_in_its_form(claude):
    models = list(claude.models.list())
    assert [each.id for each in models][0] == MODEL
    assert models[0].type == "model" and models[0].display_name == MODEL and models[0].created_at.year >= 2024
    assert claude.models.retrieve("deepseek-chat").id == "deepseek-chat"


def test_structured_output(claude):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"],
              "additionalProperties": False}
    options = say(claude)
    options["extra_body"] = {"temperature": 0, "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    message = claude.messages.create(**{**options, "max_tokens": 1500})
    assert 1 <= json.loads(message.content[-1].text)["n"] <= 9


def test_results_of_tools_go_back(claude):
    tool = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
    turns = [{"role": "user", "content": "What is 12 + 30?"},
             {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "now", "input": {}}]},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "noon"}]}]
    options = say(claude, tools=[tool])
    with_tools = claude.messages.count_tokens(model=MODEL, messages=turns, tools=[tool]).input_tokens
    assert with_tools > claude.messages.count_tokens(model=MODEL, messages=turns).input_tokens + 50  # the model is told of them
    usage = claude.messages.create(**{**options, "messages": turns}).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == with_tools
