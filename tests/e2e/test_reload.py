"""Other weights while the server serves: what replies say of them, that each is by the weights that it names, and refusals."""

import json
import shutil
import threading
import urllib.request

import pytest
from safetensors.torch import load_file, save_file

from tests.e2e.running import MODEL, free_ports, get, post, start_server

PROMPT = {"messages": [{"role": "user", "content": "Compute 84*23 and gcd(270, 192). Think step by step and in parallel before answering."}],
          "max_tokens": 60, "temperature": 0}  # fmt: skip


def variant(folder, change):
    """The shipped model with each shard's tensors changed."""
    shutil.copytree(MODEL, folder)
    for file in sorted(folder.glob("*.safetensors")):
        save_file(change(load_file(file)), file, metadata={"format": "pt"})


def swapped(tensors):
    """Other weights of the same shape: two tokens' embeddings change places, which changes what greedy decoding says."""
    table = tensors.get("model.embed_tokens.weight")
    if table is not None:
        table[[16, 17, 18, 19]] = table[[17, 18, 19, 16]].clone()
    return tensors


def without_norm(tensors):
    return {name: value for name, value in tensors.items() if name != "model.norm.weight"}


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    variant(root / "same", lambda tensors: tensors)
    variant(root / "other", swapped)
    variant(root / "broken", without_norm)
    shutil.copytree(MODEL, root / "wider")
    config = json.loads((root / "wider" / "config.json").read_text())
    (root / "wider" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    return root


@pytest.fixture(scope="module")
def server(training, tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("server") / "log", "--reload-dir", str(training), "--threads", "1")
    yield server
    assert server.stop() == 0


def reload(server, **body):
    status, text = post(server.url + "/admin/reload_weights", body)
    return status, json.loads(text)


def ask(server, **changes):
    """A reply's text, versions, and header."""
    request = urllib.request.Request(server.url + "/v1/chat/completions", json.dumps(PROMPT | changes).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        reply = json.loads(answer.read())
        return reply["choices"][0]["message"]["content"], reply["weights_versions"], answer.headers["X-Weights-Version"]


def test_replies_under_load_are_by_the_weights_that_they_name(server, training):
    texts = {}
    for path in ("same", "other"):
        assert reload(server, path=path)[0] == 200
        texts[path], versions, header = ask(server)
        assert header == str(versions[0]) and len(versions) == 1
    assert texts["same"] != texts["other"]
    current = versions[0]
    path_of = {current: "other"}
    wrong, several, done = [], [], threading.Event()

    def client():
        while not done.is_set():
            text, versions, header = ask(server)
            assert header == ", ".join(map(str, versions))
            if len(versions) > 1:
                several.append(versions)
            else:
                wrong.extend([(versions, text)] if text != texts[path_of[versions[0]]] else [])

    clients = [threading.Thread(target=client) for _ in range(3)]
    for version in range(current + 1, current + 9):  # known before a reply can name them
        path_of[version] = "same" if version % 2 else "other"
    for thread in clients:
        thread.start()
    for version in range(current + 1, current + 9):
        status, answer = reload(server, path=path_of[version], mode="keep" if version % 3 == 0 else "recompute")
        assert (status, answer["weights_version"], answer["previous_version"]) == (200, version, version - 1)
    done.set()
    for thread in clients:
        thread.join()
    assert not wrong
    assert all(versions == sorted(set(versions)) for versions in several)
    status, metrics = get(server.url + "/metrics")
    assert f'multiverse_weights_version{{model_name="{server.name}"}} {current + 8}' in metrics
    assert "weights reloaded" in server.log.read_text() and "weights_versions=" in server.log.read_text()


def test_a_stream_names_its_weights(server):
    body = json.dumps(PROMPT | {"stream": True, "max_tokens": 5}).encode()
    request = urllib.request.Request(server.url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        header, lines = answer.headers["X-Weights-Version"], answer.read().decode().split("\n\n")
    last = next(json.loads(line[6:]) for line in reversed(lines) if line.startswith("data: {"))
    assert last["choices"][0]["finish_reason"] == "length" and last["weights_versions"] == [int(header)]


@pytest.mark.parametrize(
    "body, says",
    [
        ({"path": "broken"}, "model.norm.weight"),
        ({"path": "wider"}, "num_hidden_layers is 6, not 7; other shapes want a restart"),
        ({"path": "../.."}, "lies elsewhere"),
        ({"path": "nowhere"}, "is not there"),
        ({"mode": "gently"}, "mode"),
        ({"version": 3}, "no field of this route"),
    ],
)
def test_refusals_leave_the_weights_as_they_were(server, body, says):
    before = ask(server)
    status, answer = reload(server, **body)
    assert status == 400 and says in answer["error"]["message"], answer
    assert ask(server) == before


def test_the_route_is_off_unless_wanted_and_wants_a_key_wherever_it_stands(training, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    (metrics,) = free_ports(1)
    operators = f"http://127.0.0.1:{metrics}"
    options = ["--metrics-port", str(metrics), "--api-key-file", str(keys), "--threads", "1"]
    server = start_server(tmp_path / "log", *options)
    key = {"Authorization": "Bearer secret"}
    try:
        assert post(operators + "/admin/reload_weights", {}, **key)[0] == 404
    finally:
        assert server.stop() == 0
    server = start_server(tmp_path / "log", "--reload-dir", str(training), *options)
    try:
        assert post(server.url + "/admin/reload_weights", {}, **key)[0] == 404  # operators have an address of their own
        assert post(operators + "/admin/reload_weights", {})[0] == 401
        assert post(operators + "/admin/reload_weights", {}, **key)[0] == 200
    finally:
        assert server.stop() == 0
