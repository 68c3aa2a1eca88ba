"""The served OpenAPI document: requests made from it, and by hand, get the answers that it describes."""

import json
import urllib.request

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from running import LONG, MODEL, get, post
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 300 if LONG else 8  # of each route
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CHAT = {"messages": [{"role": "user", "content": "Compute 3*4 and 5*6."}], "max_tokens": 60, "temperature": 0}
TEXT = {"prompt": ["Compute", "7*8"], "max_tokens": 12, "seed": 1}
SCHEMA = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"], "additionalProperties": False}

CHATS = [
    {},
    {"n": 2, "logprobs": True, "top_logprobs": 3, "return_token_ids": True},
    {"stop": ["\n"], "include_stop_str_in_output": True},
    {"reasoning_format": "split", "response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
    {"structured_outputs": {"choice": ["yes", "no"]}},
    {"multiverse": {"mode": "serial", "structure": "strict"}, "prompt_logprobs": 2},
]
TEXTS = [{}, {"echo": True, "logprobs": 2, "return_token_ids": True}, {"prompt_logprobs": 0}, {"logprobs": 0}]
# Not what streams can have.
WHOLE_ONLY = {"prompt_logprobs"}


@pytest.fixture(scope="module")
def document(server):
    status, body = get(f"{server.url}/openapi.json")
    assert status == 200
    return json.loads(body)


def check(document, name, value):
    """Asserts that a value has the document's schema of that name."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    errors = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(value)]
    assert not errors, (errors, value)


def stream(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        events = answer.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2] if not event.startswith(":")]


def test_it_names_every_route(server, document):
    for path, operations in document["paths"].items():
        for method in ("get", "post"):
            url = server.url + path.replace("{id}", "multiverse-tiny")
            status, body = get(url) if method == "get" else post(url, {})
            if path == "/admin/reload_weights":  # off here
                assert status == 404
            else:
                assert (status == 405) == (method not in operations), (path, method, status)
            if status != 200:
                check(document, "Error", json.loads(body))
    assert document["info"]["version"] == json.loads(get(f"{server.url}/version")[1])["version"]


def check_answers(server, document, path, request, schemas, stream_options):
    """What the server answers as a whole, and as a stream where the request can be one."""
    asked, whole, chunk_schema = schemas
    check(document, asked, request)
    status, body = post(server.url + path, request)
    assert status == 200, body
    check(document, whole, json.loads(body))
    if not WHOLE_ONLY & request.keys():
        for chunk in stream(server.url + path, request | {"stream": True} | stream_options):
            check(document, chunk_schema, chunk)


@pytest.mark.parametrize("more", CHATS)
def test_chats_have_its_schemas(server, document, more):
    schemas = "ChatRequest", "ChatCompletion", "ChatCompletionChunk"
    options = {"include_usage": True, "include_branches": True, "continuous_usage_stats": True}
    check_answers(server, document, "/v1/chat/completions", CHAT | more, schemas, {"stream_options": options})


@pytest.mark.parametrize("more", TEXTS)
def test_texts_have_its_schemas(server, document, more):
    schemas = "CompletionRequest", "TextCompletion", "TextCompletionChunk"
    check_answers(server, document, "/v1/completions", TEXT | more, schemas, {})


def test_reloads_have_its_schemas(fresh_server, document):
    server = fresh_server("--reload-dir", str(MODEL.parent))
    url = f"{server.url}/admin/reload_weights"
    for body, wanted, schema in (({"path": MODEL.name}, 200, "Reload"), ({"mode": "gently"}, 400, "Error")):
        status, answer = post(url, body)
        assert status == wanted, answer
        check(document, schema, json.loads(answer))
    assert get(url)[0] == 405


@pytest.fixture
def api(server, document):
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    schema.config.phases.coverage.enabled = False  # methods and media types that no route takes: other tests have them
    return schema


def shorten(body):
    """Long generations would only take time."""
    if not isinstance(body, dict):
        return
    if body.get("n") not in (None, 1) and isinstance(body["n"], int):
        body["n"] = min(body["n"], 2)
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int) and body[name] > 4:
            body[name] = 4
    if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = 4


@schemathesis.pytest.from_fixture("api").parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_generated_requests(case):
    if case.path in ("/v1/chat/completions", "/v1/completions"):
        shorten(case.body)
    case.call_and_validate(checks=CHECKS, timeout=60)
