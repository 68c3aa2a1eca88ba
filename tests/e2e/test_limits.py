"""The server's limits on a request, and a request's own, which only tighten them: what comes of each."""

import json

import pytest
from running import post

LIMITS = {"max_paths": 3, "max_depth": 1, "max_path_tokens": 12, "max_running_paths": 1}


def plan(labels):
    outlines = "".join(f"<Outline>\n{n}: 2*{n}\n</Outline>\n" for n in range(1, labels + 1))
    return f"2*1\n<Parallel>\n<Goal>\n{outlines}</Goal>"


@pytest.fixture
def limited(fresh_server):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in LIMITS.items()]
    return fresh_server(*options, "--max-total-paths=3", "--max-request-tokens=200")


def complete(server, prompt, **options):
    body = {"model": server.name, "prompt": prompt, "max_tokens": 150, "temperature": 0, **options}
    status, answer = post(f"{server.url}/v1/completions", body)
    return status, json.loads(answer)


def parallel(answer):
    return answer["usage"]["completion_tokens_details"]["parallel"]


def test_limits_of_the_server_and_of_a_request(limited):
    # Within the limits: three paths, one at a time.
    status, answer = complete(limited, plan(3))
    assert status == 200, answer
    assert parallel(answer)["paths"] == 3 and parallel(answer)["max_depth"] == 1
    paths = answer["choices"][0]["text"].split("<Path>")[1:]
    assert len(paths) == 3
    # One label more than max_paths: the block runs sequentially.
    assert parallel(complete(limited, plan(4))[1])["paths"] == 0
    # A request may ask for less, never for more.
    assert parallel(complete(limited, plan(3), multiverse={"max_paths": 2})[1])["paths"] == 0
    for name, most in LIMITS.items():
        status, answer = complete(limited, plan(3), multiverse={name: most + 1})
        assert (status, answer["error"]["param"]) == (400, f"multiverse.{name}"), answer
        assert complete(limited, plan(1), multiverse={name: 1})[0] == 200
    # What one request may hold in the cache, prompt included: the reply ends there.
    answer = complete(limited, "2*1", max_tokens=1000, ignore_eos=True)[1]
    usage = answer["usage"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 200
    status, answer = complete(limited, "1" * 250)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "one request may hold 200 in the cache" in answer["error"]["message"]
