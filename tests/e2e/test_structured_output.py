"""Replies held to schemas and patterns, and tool calls, with the official client against the real binary. The model
that ships was trained on neither: what it says is the mask's doing."""

import json
import re
import shutil

import openai
import pytest
from running import MODEL

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Can {name}.",
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "unit": {"enum": ["m", "é"]}},
                "required": ["x", "unit"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("measure", "weigh")
]
QUESTION = [{"role": "user", "content": "Compute 84*23 and gcd(270, 192)."}]
# As Qwen's templates have it.
QWEN = """{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# As Llama's: one call, the whole answer.
LLAMA = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if loop.first and tools %}{{- 'Respond with {"name": function name, "parameters": dictionary}.\\n' }}
{%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n' }}{%- endfor %}{%- endif %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{- raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}' }}
{%- elif message.content %}{{- message.content }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as one:
        yield one


@pytest.fixture(params=[QWEN, LLAMA], ids=["qwen", "llama"])
def tool_client(request, fresh_server, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    (folder / "chat_template.jinja").write_text(request.param)
    server = fresh_server("--model", str(folder), "--served-model-name", "multiverse-tiny")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as one:
        yield one


def ask(client, **options):
    options = {"model": "multiverse-tiny", "messages": QUESTION, "temperature": 1, "max_tokens": 400} | options
    return client.chat.completions.create(**options)


def split(**options):
    return options | {"extra_body": {"reasoning_format": "split"}}


def test_a_schema_holds_the_answer(client):
    schema = {
        "type": "object",
        "properties": {
            "numbers": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3},
            "kind": {"enum": ["sum", "product"]},
        },
        "required": ["numbers", "kind"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    answer = ask(client, **split(response_format=wanted, n=4, seed=1, max_tokens=1500))
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        value = json.loads(choice.message.content)
        assert list(value) == ["numbers", "kind"]
        assert value["kind"] in ("sum", "product") and len(value["numbers"]) <= 3


def test_a_pattern_holds_the_answer(client):
    answer = client.completions.create(
        model="multiverse-tiny",
        prompt="12",
        n=4,
        seed=3,
        max_tokens=40,
        extra_body={"structured_outputs": {"regex": r"[a-f]{3}-\d{2}"}},
    )
    for choice in answer.choices:
        assert re.fullmatch(r"[a-f]{3}-\d{2}", choice.text), choice.text


def test_thoughts_have_a_field_of_their_own(client):
    options = {"temperature": 0, "max_tokens": 1500}
    whole = ask(client, **options).choices[0].message.content
    message = ask(client, **split(**options)).choices[0].message
    assert whole.startswith("<Think>")
    assert f"<Think>{message.reasoning_content}</Think>{message.content}" == whole
    assert message.reasoning == message.reasoning_content
    said = {"content": "", "reasoning_content": ""}
    for chunk in ask(client, **split(stream=True, **options)):
        for name in said:
            said[name] += getattr(chunk.choices[0].delta, name, None) or ""
    assert said == {"content": message.content, "reasoning_content": message.reasoning_content}


def test_a_model_without_tools_says_so(client):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, tools=TOOLS)
    assert refused.value.body["param"] == "tools"


def calls_of(stream):
    calls, reasons = {}, []
    for chunk in stream:
        choice = chunk.choices[0]
        for part in choice.delta.tool_calls or []:
            call = calls.setdefault(part.index, {"name": "", "arguments": "", "id": ""})
            call["id"] += part.id or ""
            call["name"] += part.function.name or ""
            call["arguments"] += part.function.arguments or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
    return [calls[index] for index in sorted(calls)], reasons


def test_forced_calls_and_the_turn_after(tool_client):
    options = {"tools": TOOLS, "seed": 7, "max_tokens": 2000}
    required = ask(tool_client, tool_choice="required", parallel_tool_calls=False, **options).choices[0]
    assert required.finish_reason == "tool_calls", required
    [call] = required.message.tool_calls
    assert call.function.name in ("measure", "weigh")
    arguments = json.loads(call.function.arguments)
    assert 0 <= arguments["x"] <= 99 and arguments["unit"] in ("m", "é")

    streamed, reasons = calls_of(
        ask(tool_client, tool_choice="required", parallel_tool_calls=False, stream=True, **options)
    )
    assert reasons == ["tool_calls"]
    assert [(one["name"], one["arguments"]) for one in streamed] == [(call.function.name, call.function.arguments)]
    assert streamed[0]["id"].startswith("call_")

    named = ask(tool_client, tool_choice={"type": "function", "function": {"name": "weigh"}}, **options).choices[0]
    assert [one.function.name for one in named.message.tool_calls] == ["weigh"]

    history = [
        *QUESTION,
        required.message.model_dump(include={"role", "content", "tool_calls"}),
        {"role": "tool", "tool_call_id": call.id, "content": "42"},
    ]
    assert ask(tool_client, messages=history, tools=TOOLS, max_tokens=20).choices[0].message.role == "assistant"
    free = ask(tool_client, tools=TOOLS, max_tokens=20)  # tool_choice auto
    assert free.choices[0].message.tool_calls is None
