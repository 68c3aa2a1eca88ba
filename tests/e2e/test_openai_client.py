"""The official OpenAI client against the real binary."""

import json
import random

import openai
import pytest

# A held-out question that the model solves in parallel.
QUESTION = [
    {
        "role": "user",
        "content": "A question: Give the results of 7972 times 16, 971 times 69, 294 times 49, 653 times 26, "
        "624 times 51 and 5628 times 78.",
    }
]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as one:
        yield one


def ask(client, **options):
    options = {"model": "multiverse-tiny", "messages": QUESTION, "temperature": 0} | options
    return client.chat.completions.create(**options)


def stream_text(chunks):
    """Text by choice, the chunks, and whether each choice ended once."""
    texts, reasons, all_chunks = {}, {}, []
    for chunk in chunks:
        all_chunks.append(chunk)
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                assert choice.index not in reasons
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, all_chunks


def test_models(client):
    assert [model.id for model in client.models.list()] == ["multiverse-tiny"]
    assert client.models.retrieve("multiverse-tiny").id == "multiverse-tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_chat(client):
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    parallel = usage.completion_tokens_details.model_extra["parallel"]
    assert 0 < parallel["steps"] <= parallel["critical_path_tokens"] <= usage.completion_tokens


@pytest.mark.parametrize("options", [{}, {"temperature": 1, "seed": 5}, {"n": 3, "temperature": 1, "seed": 1}])
def test_a_stream_is_the_answer_byte_for_byte(client, options):
    whole = ask(client, **options)
    texts, reasons, chunks = stream_text(ask(client, stream=True, **options))
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks)


def test_stop_strings_cut_the_stream_and_the_answer_alike(client):
    whole = ask(client).choices[0].message.content
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(8):
        start = chance.randrange(len(whole))
        stop = whole[start : start + chance.randint(1, 12)]
        expected = whole[: whole.find(stop)]
        answer = ask(client, stop=[stop])
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "stop"
        texts, _, _ = stream_text(ask(client, stop=[stop], stream=True))
        assert texts[0] == expected


def test_usage_chunk(client):
    _, _, chunks = stream_text(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_branches_joined_are_the_text(client):
    chunks = list(ask(client, stream=True, stream_options={"include_branches": True}))
    text, branches, structure = "", {}, []
    for chunk in chunks:
        branch = (chunk.model_extra or {}).get("branch")
        if branch is None:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            continue
        assert chunk.choices == []
        branches[branch["id"]] = branches.get(branch["id"], "") + branch["text"]
        structure.append((branch["event"], branch["id"]))
    assert sum(map(len, branches.values())) == len(text)
    forks = [name for event, name in structure if event == "fork"]
    for name in forks:
        assert branches[name] in text
        assert ("end", name) in structure
    assert branches[""].startswith(text[:1])


def test_modes_and_limits(client):
    parallel = ask(client)
    serial = ask(client, extra_body={"multiverse": {"mode": "serial"}})
    assert serial.choices[0].message.content == parallel.choices[0].message.content
    off = ask(client, extra_body={"multiverse": {"mode": "off"}})
    assert off.usage.completion_tokens_details.model_extra["parallel"]["blocks"] == 0


def test_logprobs(client):
    answer = ask(client, logprobs=True, top_logprobs=3, extra_body={"return_token_ids": True})
    choice = answer.choices[0]
    content = choice.logprobs.content
    assert len(content) == len(choice.model_extra["token_ids"])
    for entry in content:
        if entry.logprob is None:  # written by the engine
            assert entry.top_logprobs == []
            continue
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob >= entry.logprob  # greedy: the likeliest


def test_an_answer_read_back_has_the_same_logprobs(client):
    prompt = client.completions.create(
        model="multiverse-tiny", prompt="x", max_tokens=1, extra_body={"return_token_ids": True}
    ).choices[0]
    assert prompt.model_extra["prompt_token_ids"]
    answer = ask(client, logprobs=True, extra_body={"return_token_ids": True})
    ids = answer.model_extra["prompt_token_ids"] + answer.choices[0].model_extra["token_ids"]
    told = [entry.logprob for entry in answer.choices[0].logprobs.content]
    read = client.completions.create(
        model="multiverse-tiny", prompt=ids, max_tokens=1, extra_body={"prompt_logprobs": 0}
    ).choices[0]
    again = read.model_extra["prompt_logprobs"][-len(told) :]
    compared = 0
    for token, first, second in zip(ids[-len(told) :], told, again):
        if first is None or second is None:
            continue
        assert abs(first - second[str(token)]["logprob"]) < 1e-2
        compared += 1
    assert compared > len(told) // 2


def test_completions(client):
    text = "2+2="
    answer = client.completions.create(
        model="multiverse-tiny", prompt=[text, "3+3="], max_tokens=4, temperature=0, logprobs=2, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    choice = answer.choices[0]
    assert choice.text.startswith(text)
    assert "".join(choice.logprobs.tokens[:2]) in choice.text
    assert choice.logprobs.text_offset[0] == 0
    assert choice.logprobs.token_logprobs[0] is None


def test_errors_are_the_clients_exceptions(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, temperature=3)
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, model="gpt-4")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as unsupported:
        ask(client, reasoning_effort="low")
    assert unsupported.value.param == "reasoning_effort"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="multiverse-tiny", prompt=[5] * 200_000)
    assert long.value.code == "context_length_exceeded"


def test_keys(fresh_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# comment\nright\n")
    server = fresh_server("--api-key-file", str(keys))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="right", max_retries=0) as right:
        assert json.loads(right.models.list().model_dump_json())["data"]
