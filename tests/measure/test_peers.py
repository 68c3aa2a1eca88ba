"""Forks and joins by the client against a scripted server, and the server around transformers against plain generation."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from measure.client import Client
from measure.local_server import TINY, LocalServer
from measure.peers import Orchestrator, Spent, figures, markdown, prompt_of
from tests.measure.scripted_server import Say, ScriptedServer

ROOT = Path(__file__).resolve().parents[2]
GOAL = "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n"
NESTED = " two\n<Parallel>\n<Goal>\n<Outline>\n2.1: c\n</Outline>\n"


def usage(prompt, tokens):
    return {"prompt_tokens": prompt, "completion_tokens": tokens}


def run(script, max_tokens=1000):
    with ScriptedServer(script) as server:

        async def ask():
            async with Client(server.url) as client:
                return await Orchestrator(client, {"model": "m"}, max_tokens).answer("Q")

        text, spent = asyncio.run(ask())
        return text, spent, server.bodies


def test_forks_nested_forks_and_joins():
    joined = f"Q{GOAL}</Goal>\n<Path>\n1: one</Path>\n<Path>\n2:{NESTED}</Goal>\n<Path>\n2.1: deep</Path>\n<Conclusion>\nboth</Path>\n<Conclusion>\n"
    says = {
        "Q": GOAL,
        f"Q{GOAL}</Goal>\n<Path>\n1:": " one",
        f"Q{GOAL}</Goal>\n<Path>\n2:": NESTED,
        f"Q{GOAL}</Goal>\n<Path>\n2:{NESTED}</Goal>\n<Path>\n2.1:": " deep",
        f"Q{GOAL}</Goal>\n<Path>\n2:{NESTED}</Goal>\n<Path>\n2.1: deep</Path>\n<Conclusion>\n": "both",
        joined: "the end",
    }
    text, spent, bodies = run(lambda body: Say(says[body["prompt"]], usage(10, 5)))
    assert "Q" + text == joined + "the end"
    assert spent == Spent(requests=6, prompt_tokens=60, tokens=30)
    assert {tuple(body["stop"]) for body in bodies} == {("</Goal>",), ("</Path>", "</Goal>")}
    assert all(body["temperature"] == 0 for body in bodies)


def test_an_answer_that_is_cut_off_does_not_fork_and_a_budget_ends_it():
    text, spent, _ = run(lambda body: Say(GOAL, usage(10, 50), finish_reason="length"))
    assert (text, spent.requests) == (GOAL, 1)
    # The model opens goals for ever: the budget of tokens ends that.
    _, spent, bodies = run(lambda body: Say(GOAL, usage(10, 50)), max_tokens=400)
    assert spent.requests == len(bodies) <= 8 + 16  # those under way at once may each exceed it


def test_a_server_that_refuses_is_named():
    try:
        run(lambda body: Say("no", status=400))
    except Exception as error:  # noqa: BLE001
        assert "400" in str(error)
    else:
        raise AssertionError("nothing was raised")


def test_page():
    runs = [{"way": "ours", "right": 3, "answers": 4, "seconds": [1.0, 2.0, 9.0], "requests": 8, "prompt_tokens": 400, "tokens": 2000}]
    row = figures(runs + [runs[0] | {"seconds": [4.0]}])
    about = {"command": "c", "machine": "m", "commit": "a", "load": [1.0, 2.0], "threads": 2, "repeats": 2}
    assert "| ours | 3 of 4 | 3.000 (2.000 to 4.000) | 1.00 | 2.0 | 100 | 500 |" in markdown({"about": about, "ways": [row]})


@pytest.mark.skipif(os.environ.get("MULTIVERSE_TEST_LONG") != "1", reason="loads torch and transformers: 20 s on a busy machine")
def test_the_server_around_transformers_equals_plain_generation(tmp_path):
    """Batches, kept keys and values, and stops change no token: our own server is the judge, greedy, without forks."""
    prompt = prompt_of("Compute 12*13 and 84*23. Think step by step and in parallel before answering.")
    command = [sys.executable, str(ROOT / "scripts/measure/transformers_server.py"), "--model", str(TINY)]
    with LocalServer(tmp_path / "peer.log", command=command) as peer, LocalServer(tmp_path / "ours.log") as ours:

        async def all_of(url, extension):
            async with Client(url) as client:
                body = {"model": (await client.models())[0], "temperature": 0, "max_tokens": 60} | extension
                first = await client.complete("completions", body | {"prompt": prompt, "stop": ["</Goal>"]})
                paths = [prompt + first.text + f"</Goal>\n<Path>\n{label}:" for label in (1, 2)]
                both = await asyncio.gather(*(client.complete("completions", body | {"prompt": p, "stop": ["</Path>"]}) for p in paths))
                return [(r.text, r.finish_reason, r.usage["prompt_tokens"]) for r in (first, *both)]

        assert asyncio.run(all_of(peer.url, {})) == asyncio.run(all_of(ours.url, {"multiverse": {"mode": "off"}}))
