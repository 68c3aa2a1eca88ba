"""What the page's tests ask, and how they look at the server and the page."""

import json
import urllib.request

from axe_playwright_python.sync_playwright import Axe

from tests.e2e.running import ROOT

THREE_PARTS = "Compute gcd(221, 143), 84*23 and gcd(270, 192). Think step by step and in parallel before answering."
SIX_PRODUCTS = "Work out 562 times 43, 35 times 36, 588 times 89, 388 times 83, 6167 times 78 and 80 times 519. Which result is the largest?"
GROUPS = "Group A: lpf(121), lpf(140); group B: gcd(78,624), gcd(128,712). Find the largest value of each group. What is the sum of the results?"
TRACES = next((path for path in [ROOT / "../shared/traces/aime24.jsonl"] if path.exists()), None)  # real answers


def get(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
        return answer.status, answer.headers, answer.read()


def complete(server, question):
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def metric(server, name):
    text = get(f"{server.url}/metrics")[2].decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"multiverse_{name}"))


def accessibility(window, name):
    found = Axe().run(window.page, options={"resultTypes": ["violations"]})
    problems = [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]
    assert not problems, f"{name}:\n" + "\n".join(problems)
