"""Kubernetes manifests and the Containerfile: valid by schema, and in step with the server's own names and numbers."""

import json
import re
import shlex
import subprocess

import kubernetes_validate
import pytest
import yaml
from running import BINARY, MODEL, ROOT

MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/multiverse.yaml").read_text()))
GATEWAY = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/gateway.yaml").read_text()))
METRICS = {line.split()[0] for line in (ROOT / "tests/e2e/metrics.txt").read_text().splitlines()}
pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


def one(documents, kind):
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod():
    return one(MANIFESTS, "Deployment")["spec"]["template"]


def container():
    (only,) = pod()["spec"]["containers"]
    return only


def server_config():
    return json.loads(one(MANIFESTS, "ConfigMap")["data"]["server.json"])


@pytest.mark.parametrize("version", ["1.29", "1.33"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_manifests_follow_the_schema(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_notices_mistakes():
    wrong = json.loads(json.dumps(one(MANIFESTS, "Deployment")))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_the_servers_options_are_right(tmp_path):
    (tmp_path / "keys").write_text("a-key\n")
    config = server_config()
    assert config["model"].startswith("/models/") and config["api_key_file"] == "/keys/keys"
    config |= {"model": str(MODEL), "api_key_file": str(tmp_path / "keys")}
    (tmp_path / "server.json").write_text(json.dumps(config))
    command = [BINARY, "check-config", "--config", tmp_path / "server.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def test_numbers_belong_together():
    config, spec = server_config(), pod()["spec"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"api": config["port"], "metrics": config["metrics_port"]}
    sleep = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > sleep + config["drain_timeout_seconds"] + 2
    probes = {name: container()[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert all(probe["httpGet"]["port"] == "metrics" for probe in probes.values())
    labels = pod()["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = one(MANIFESTS, kind)["spec"]
        selector = spec.get("podSelector", spec["selector"] if "selector" in spec else None)
        assert selector.get("matchLabels", selector).items() <= labels.items(), kind
    pool = one(GATEWAY, "InferencePool")["spec"]
    assert pool["selector"]["matchLabels"].items() <= labels.items()
    assert pool["targetPorts"] == [{"number": config["port"]}]


def test_autoscaler_and_picker_ask_for_metrics_that_exist():
    scaler = one(MANIFESTS, "HorizontalPodAutoscaler")["spec"]["metrics"]
    asked = [metric["pods"]["metric"]["name"] for metric in scaler]
    (engine,) = yaml.safe_load(one(GATEWAY, "ConfigMap")["data"]["engine-config.yaml"])["engineConfigs"]
    assert engine["name"] == pod()["metadata"]["labels"]["llm-d.ai/engine-type"]
    asked += [value for name, value in engine.items() if name.endswith("Spec")]
    assert len(asked) == 6 and set(asked) <= METRICS


def test_gateway_refers_to_what_is_there():
    route, pool = one(GATEWAY, "HTTPRoute"), one(GATEWAY, "InferencePool")
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert (backend["kind"], backend["name"]) == (pool["kind"], pool["metadata"]["name"])
    assert pool["apiVersion"] == f"{backend['group']}/v1"
    assert route["spec"]["rules"][0]["timeouts"]["request"] == "0s"


def test_containerfile_is_in_step():
    text = re.sub(r"\\\n", " ", (ROOT / "deploy/Containerfile").read_text())
    for path in re.findall(r"scripts/\w+", text):
        assert (ROOT / path).exists()
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.M)[1])
    known = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(f"{flag} " in known for flag in entry if flag.startswith("--"))
    # The libraries of Debian that the binary loads are in the image, themselves or as what another one depends on.
    installed = shlex.split(re.search(r"--no-install-recommends ([^&]*)&&", text)[1])
    linked = subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout
    files = [path for path in re.findall(r"=> (\S+)", linked) if path.startswith(("/lib", "/usr/lib"))]
    direct = {"libcpp-httplib": "libcpp-httplib0.11", "libpcre2-8": "libpcre2-8-0", "libspdlog": "libspdlog1.10",
              "libutf8proc": "libutf8proc2"}  # fmt: skip
    for library, package in direct.items():
        assert any(library in file for file in files), library
        assert package in installed
