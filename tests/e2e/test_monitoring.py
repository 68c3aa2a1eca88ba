"""Metrics of the real binary: valid, named as promised, and what dashboards and alerts ask for exists."""

import json
import re
import shutil
import subprocess
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import ROOT

MONITORING = ROOT / "deploy/monitoring"
GOLDEN = ROOT / "tests/e2e/metrics.txt"
# What endpoint pickers of load balancers read: queued, running, share of the cache, its page size and pages.
PICKED = {
    "multiverse_requests_waiting": "gauge",
    "multiverse_requests_running": "gauge",
    "multiverse_kv_cache_usage_ratio": "gauge",
    "multiverse_cache_config_info": "gauge",
}


@pytest.fixture(scope="module")
def page(server):
    """/metrics after an answer with a fork."""
    question = "Compute gcd(221, 143), 84*23 and gcd(270, 192). Think step by step and in parallel before answering."
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["usage"]["completion_tokens_details"]["parallel"]["blocks"] >= 1
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.read().decode()


def families(page):
    return {family.name: family for family in text_string_to_metric_families(page)}


def test_names_and_kinds_are_a_promise(page):
    """A changed line is a change of the API: dashboards and alerts of others depend on it."""
    lines = sorted(set(re.findall(r"^# TYPE (\S+ \S+)$", page, re.M)))
    assert lines == GOLDEN.read_text().splitlines()


def test_the_page_is_well_formed(page):
    found = families(page)
    assert len(found) == len(re.findall(r"^# TYPE ", page, re.M)), "a family stands twice"
    for name, family in found.items():
        assert family.documentation.endswith("."), name
        assert family.type in ("gauge", "counter", "histogram"), name
        assert family.samples, f"{name} has no sample"
        for sample in family.samples:
            assert "model_name" in sample.labels or name.startswith("process_"), name
    for line in page.splitlines():
        if (kind := re.match(r"# TYPE (\S+) (\S+)$", line)) is not None:
            assert kind[1].endswith("_total") == (kind[2] == "counter"), line
            assert re.match(r"(multiverse|process)_[a-z_]+$", kind[1]), line
    assert sum(not line.startswith("#") for line in page.splitlines()) <= 500


def test_endpoint_pickers_find_what_they_need(page):
    found = families(page)
    for name, kind in PICKED.items():
        assert found[name].type == kind
        assert len(found[name].samples) == 1
    assert 0 <= found["multiverse_kv_cache_usage_ratio"].samples[0].value <= 1
    labels = found["multiverse_cache_config_info"].samples[0].labels
    assert int(labels["block_size"]) == 16 and int(labels["num_gpu_blocks"]) > 0


def test_branches_are_counted(page):
    found = families(page)

    def total(name):
        samples = found[name].samples
        return next(s.value for s in samples if s.name in (name, f"{name}_total", f"{name}_count"))

    assert total("multiverse_forks") == total("multiverse_joins") == total("multiverse_fork_width") >= 1
    assert total("multiverse_join_wait_seconds") == total("multiverse_joins")
    assert total("multiverse_step_tokens") == total("multiverse_engine_steps") > 10
    assert total("multiverse_request_critical_path_tokens") >= 1


def asked_for():
    """Every name in the dashboard's and the alerts' expressions, with where it stands."""
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(panels) > 20 and len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    texts = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    texts.append(("alerts.yml", (MONITORING / "alerts.yml").read_text()))
    return [(name, place) for place, text in texts for name in re.findall(r"\b(?:multiverse|process)_[a-z_]+\b", text)]


def test_dashboard_and_alerts_ask_for_what_exists(page):
    samples = {sample.name for family in families(page).values() for sample in family.samples}
    names = asked_for()
    missing = [f"{name} in {place}" for name, place in names if name not in samples]
    assert not missing
    assert {"multiverse_requests_waiting", "multiverse_engine_last_step_age_seconds"} <= {name for name, _ in names}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
def test_promtool_has_nothing_to_say(page):
    for command, given in [
        (["promtool", "check", "metrics"], page),
        (["promtool", "check", "rules", str(MONITORING / "alerts.yml")], ""),
        (["promtool", "check", "config", str(MONITORING / "prometheus.yml")], ""),
    ]:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, f"{command}: {done.stdout}{done.stderr}"
