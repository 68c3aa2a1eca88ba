#!/usr/bin/env python3
"""Asks a running server the held-out problems and prints the gates' table. Standard library only."""

import argparse
import concurrent.futures
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import report

MODEL = Path(__file__).resolve().parents[2] / "models" / "multiverse-tiny"
WORDINGS = {"parallel": " Think step by step and in parallel before answering.", "sequential": " Think step by step before answering."}


class Unreachable(Exception):
    pass


def post(url, body, timeout):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return {"error": f"{error.code} {error.read(300).decode(errors='replace')}"}
    except (urllib.error.URLError, OSError) as error:
        raise Unreachable(f"{url}: {error}") from error


def last_answer(text):
    """What stands after the last line's "Answer:"."""
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("Answer:").strip() if lines and lines[-1].startswith("Answer:") else None


def ask(arguments, index, problem, wording):
    body = {
        "model": arguments.model,
        "messages": [{"role": "user", "content": problem["question"] + WORDINGS[wording]}],
        "temperature": 0,
        "max_tokens": 3000,
    }
    started = time.monotonic()
    reply = post(arguments.url.rstrip("/") + "/v1/chat/completions", body, arguments.timeout)
    record = {
        "index": index, "family": problem["family"], "parts": problem["parts"], "wording": wording, "expected": problem["answer"],
        "seconds": round(time.monotonic() - started, 3), "right": False, "tokens": 0, "critical_path": 0, "blocks": 0, "malformed": 0,
    }  # fmt: skip
    if "error" in reply:
        return record | {"error": str(reply["error"])}
    content = reply["choices"][0]["message"].get("content") or ""
    usage = reply.get("usage") or {}
    parallel = (usage.get("completion_tokens_details") or {}).get("parallel") or {}
    tokens = usage.get("completion_tokens", 0)
    answer = last_answer(content)
    return record | {
        "answer": answer,
        "right": answer == problem["answer"],
        "tokens": tokens,
        "critical_path": parallel.get("critical_path_tokens", tokens),
        "steps": parallel.get("steps", tokens),
        "blocks": parallel.get("blocks", 0),
        "malformed": parallel.get("malformed", 0),
        "finish_reason": reply["choices"][0].get("finish_reason"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--problems", type=Path, default=MODEL / "heldout.jsonl")
    parser.add_argument("--model", default="multiverse-tiny")
    parser.add_argument("--limit", type=int, help="only the first N problems")
    parser.add_argument("--wording", choices=["parallel", "sequential", "both"], default="both")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one answer")
    parser.add_argument("--json", type=Path, help="write the summary and every record to this file")
    arguments = parser.parse_args()

    problems = [json.loads(line) for line in arguments.problems.read_text().splitlines()][: arguments.limit]
    wordings = list(WORDINGS) if arguments.wording == "both" else [arguments.wording]
    with concurrent.futures.ThreadPoolExecutor(arguments.concurrency) as pool:
        jobs = [pool.submit(ask, arguments, i, problem, wording) for wording in wordings for i, problem in enumerate(problems)]
        try:
            records = [job.result() for job in jobs]
        except Unreachable as error:
            pool.shutdown(cancel_futures=True)
            print(f"the server is unreachable: {error}", file=sys.stderr)
            return 1
    result = report.summary(records)
    print(report.table(result))
    errors = [r["error"] for r in records if "error" in r]
    if errors:
        print(f"requests refused: {len(errors)}, the first: {errors[0]}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"summary": result, "records": records}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
