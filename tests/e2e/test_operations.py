"""The real binary as an operator runs it: checks, keys, logs, service manager, metrics of their own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from running import BINARY, MODEL, ROOT, free_ports, get, post, start_server, wait_until

SECRET = "PROMPT-THAT-MUST-NOT-BE-LOGGED"


def check_config(*options):
    return subprocess.run([BINARY, "check-config", *options], capture_output=True, text=True, timeout=20)


@pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")
def test_check_config(tmp_path):
    fine = check_config("--model", str(MODEL))
    assert fine.returncode == 0 and "multiverse-tiny, parallel, chat and completions, 0 API keys" in fine.stdout
    (tmp_path / "keys").write_text("# staff\na-key\n\nb-key \n")
    assert "2 API keys" in check_config("--model", str(MODEL), "--api-key-file", str(tmp_path / "keys")).stdout
    (tmp_path / "none").write_text("# nobody\n")
    (tmp_path / "config.json").write_text('{"max_rwos": 3}')
    (tmp_path / "model").mkdir()
    for options, said in [
        (["--model", "/nowhere"], "no model folder '/nowhere'"),
        (["--model", str(MODEL), "--config", str(tmp_path / "config.json")], "did you mean max_rows?"),
        (["--model", str(MODEL), "--api-key-file", str(tmp_path / "none")], "no API key"),
        (["--model", str(tmp_path / "model")], "tokenizer.json"),
        (["--model", str(MODEL), "--dialect", "/no/dialect"], "/no/dialect"),
    ]:
        done = check_config(*options)
        assert done.returncode == 2, options
        assert said in done.stderr and len(done.stderr.strip().split("\n")) == 1, done.stderr
    assert check_config("--help").returncode == 0


def test_keys_are_read_again_at_sighup(fresh_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first-key\n")
    server = fresh_server("--api-key-file", str(keys))

    def status(key):
        return get(f"{server.url}/v1/models", key)[0]

    assert (status("first-key"), status("second-key"), status(None)) == (200, 401, 401)
    keys.write_text("second-key\n")
    server.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: status("second-key") == 200, 10)
    assert status("first-key") == 401
    # A file without keys must not let everyone in, and the server goes on.
    for broken in ("# none\n", None):
        keys.write_text(broken) if broken else keys.unlink()
        server.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: "the keys stay as they were" in server.log.read_text(), 10)
        assert (status("second-key"), status(None)) == (200, 401)
    assert "-key" not in server.log.read_text().replace(str(keys), "")


def test_metrics_on_a_port_of_their_own(fresh_server, tmp_path):
    (tmp_path / "keys").write_text("one\n")
    (port,) = free_ports(1)
    server = fresh_server("--api-key-file", str(tmp_path / "keys"), "--metrics-port", str(port))
    status, page = get(f"http://127.0.0.1:{port}/metrics")
    assert status == 200 and "multiverse_requests_running{" in page
    assert get(f"http://127.0.0.1:{port}/v1/models")[0] == 404
    assert get(f"{server.url}/metrics", "one")[0] == 404


def test_json_logs_hold_no_prompt_and_no_key(fresh_server, tmp_path):
    key = "KEY-THAT-MUST-NOT-BE-LOGGED"
    (tmp_path / "keys").write_text(key + "\n")
    server = fresh_server("--api-key-file", str(tmp_path / "keys"), "--log-format", "json")
    chat = {"messages": [{"role": "user", "content": SECRET + "\r\n\u001b[31m"}], "max_tokens": 3, SECRET: 1}
    url = f"{server.url}/v1/chat/completions"
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-Id": "id-7", "traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Odd": SECRET}
    assert post(url, chat, Authorization=f"Bearer {key}", **headers)[0] == 200
    assert post(url + "?" + SECRET, chat | {"model": SECRET}, Authorization=f"Bearer {key}")[0] == 404
    assert post(f"{server.url}/{SECRET}", chat, Authorization=f"Bearer {SECRET}")[0] == 401
    assert wait_until(lambda: server.log.read_text().count('"request"') >= 3, 10)
    text = server.log.read_text()
    assert SECRET not in text and key not in text and "Bearer" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    logged = [line for line in lines if line["message"] == "request"]
    # A line is written after its answer, so that another one may come before it.
    assert sorted(line["status"] for line in logged) == [200, 401, 404]
    first = next(line for line in logged if line["status"] == 200)
    assert first["level"] == "info" and first["time"].endswith("Z")
    assert first["request_id"] == "id-7" and first["trace_id"] == trace
    assert first["route"] == "/v1/chat/completions" and first["completion_tokens"] == 3 and first["prompt_tokens"] > 3


def test_the_service_manager_is_told(tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        before = dict(os.environ)
        os.environ |= {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        try:
            server = start_server(tmp_path / "log")
        finally:
            os.environ.clear()
            os.environ |= before
        said = [manager.recv(200) for _ in range(3)]
        assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        server.process.send_signal(signal.SIGTERM)
        while (last := manager.recv(200)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
        assert server.process.wait(20) == 0


def test_the_port_answers_before_the_model_is_loaded(tmp_path):
    """/livez 200 and /readyz 503 until a warm-up generation has run."""
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    (port,) = free_ports(1)
    command = [BINARY, "serve", "--model", MODEL, "--port", str(port)]
    with open(tmp_path / "log", "w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        seen = []
        while not seen or seen[-1][1] != 200:
            try:
                seen.append((get(f"http://127.0.0.1:{port}/livez")[0], get(f"http://127.0.0.1:{port}/readyz")[0]))
            except urllib.error.URLError:
                assert not seen, "the port closed again"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert all(live == 200 and ready in (503, 200) for live, ready in seen)
    assert seen[0][1] == 503, "too fast to be seen"


def test_the_unit_file_is_valid_and_hardened(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    text = (ROOT / "deploy/systemd/multiverse.service").read_text()
    unit = tmp_path / "multiverse.service"
    unit.write_text(text.replace("/opt/multiverse/build/release/multiverse", str(BINARY)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("multiverse.service")]
    assert not complaints, done.stderr
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit], capture_output=True, text=True, timeout=60
    )
    # Exposure in tenths, of 100: above 20 the command fails.
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
    # What the unit starts is what the binary takes.
    flags = re.search(r"^ExecStart=\S+ serve (.*)$", text, re.M)[1].split()
    known = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(flag in known for flag in flags if flag.startswith("--"))
