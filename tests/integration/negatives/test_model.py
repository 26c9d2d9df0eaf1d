"""The kind model, against a server that answers right, wrong, late, with errors and with garbage."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.scenes import facts
from rarft import steps
from rarft.errors import CheckFailedError, InputError
from rarft.negatives import requests as paid
from rarft.negatives.config import parse_mix
from rarft.negatives.requests import MaxCostError, ModelOptions, NoReplyError, PaidRequests

COLORS = ["red", "green", "blue", "yellow"]
CATEGORY = "Attribute/AttributeValue"


def candidate(query, category=CATEGORY, reason="It has another color."):
    return {"query": query, "category": category, "reason": reason}


def candidates(question):
    """Return what a careless model writes: what the video shows, what it does not, and what has the wrong form."""
    truth = [facts(line[2:]) for line in re.findall(r"^- .*", question, re.MULTILINE)]
    color, shape, motion = truth[0]
    others = [name for name in COLORS if name not in {each[0] for each in truth}]
    return [
        candidate(f"the {color} {shape} {motion}"),  # truth, in other words
        candidate(f"a {others[0]} {shape} {motion}", "Sound/Loudness"),
        candidate(f"a {others[0]} {shape} {motion}", reason="It is there from 1.0 to 2.0."),
        candidate(f"a {color} {shape} {motion}"),  # a query of the video
        candidate(""),
        *(candidate(f"a {name} {shape} {motion}") for name in others),
    ]


def verdict(question):
    captions, query = question.split("\n\nQuery: ")
    truth = {facts(line[2:]) for line in re.findall(r"^- .*", captions, re.MULTILINE)}
    words = tuple(query.split()[1:])
    return {"verdict": "present" if words in truth else "absent", "why": "the captions name it"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._send(200, {"object": "list", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        system, question = (message["content"] for message in body["messages"])
        server, key = self.server, (system, question)
        with server.lock:
            turn = server.requests[key]
            server.requests[key] += 1
            server.times.append(time.monotonic())
        action = server.script(question, turn) if server.script else None
        if isinstance(action, int):
            self._send(action, {"error": {"message": "no"}}, {"Retry-After": "0.3"} if action == 429 else {})
            return
        time.sleep(2.0 if action == "late" else server.delay)
        if action in (None, "late"):
            is_check = system.startswith("You check")
            reply = verdict(question) if is_check else {"queries": candidates(question)}
            text = f"```json\n{json.dumps(reply)}\n```"
        else:
            text = None if action == "empty" else action
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        with server.lock:
            server.served[key] += 1
        self._send(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices,
                         "usage": usage if server.reports_usage else None})  # fmt: skip

    def _send(self, code, content, headers=None):
        data = json.dumps(content).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has given up
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(paid, "_FIRST_WAIT_S", 0.05)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.script, server.delay, server.reports_usage = threading.Lock(), None, 0.0, True
    server.requests, server.served, server.times = defaultdict(int), Counter(), []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def options(server, tmp_path):
    def build(**changes):
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        return ModelOptions(**{"url": url, "model": "m", "cache": str(tmp_path / "replies.sqlite"), **changes})

    return build


def test_only_checked_candidates_are_used(make, truth, options, tmp_path):
    report, _, new = make(per_item=1, mix=parse_mix("model=1"), model=options())
    assert report["counts"]["made"] == len(new) == 80
    absent = [facts(row["query"]) not in truth[row["video"]] for row in new]
    assert sum(absent) == len(new)
    assert {row["extra"]["negative"]["model"] for row in new} == {"m"}
    rejected = [json.loads(line) for line in (tmp_path / "negatives" / "riq.rejected.jsonl").read_text().splitlines()]
    problems = Counter(re.sub(r" \w+/\w+", "", each["problem"]).split(":")[0] for each in rejected)
    assert problems.keys() >= {
        "unknown category", "the reason states times", "the video already has this query or caption",
        "query or reason is empty or too long", "not needed",
    }  # fmt: skip
    assert any("check: present" in each["problem"] or "near duplicate" in each["problem"] for each in rejected)
    assert "rejected candidates" in (tmp_path / "negatives" / "riq.report.html").read_text()


def test_nothing_is_lost_to_errors(make, server, options, tmp_path):
    """Every first request fails in some way; the result is the same as without failures."""
    expected = make("plain", mix=parse_mix("model=1"), model=options(cache=str(tmp_path / "plain.sqlite")))
    server.requests.clear()
    failures = [500, 429, "late", 503, "Sure! Here is one.", "empty", 502, 429, 500, "{}", "[]", 408]

    def script(question, turn):
        return failures[len(question) % len(failures)] if turn == 0 else None

    server.script = script
    report, rows, _ = make("failing", per_item=1, mix=parse_mix("model=1"), model=options(timeout=1.0))
    assert rows == expected[1]
    assert report["model"]["failed_items"] == 0
    assert report["model"]["retries"] > 0
    assert report["model"]["timeouts"] > 0


def test_unanswered_items_are_asked_again(make, server, options):
    """A run without all replies is written, fails, and is completed by the next one, which repeats no reply."""
    server.script = lambda question, turn: 400 if len(question) % 2 else None
    report, _, _ = make(mix=parse_mix("model=1"), model=options())
    assert 0 < report["model"]["failed_items"] < 80
    assert report["counts"]["missing"]["model"] >= report["model"]["failed_items"]
    assert "BadRequestError" in report["model"]["first_failure"]
    with pytest.raises(CheckFailedError, match=r"the model did not reply for .* rerun the same command"):
        steps.check_replies(report)
    served, server.script = dict(server.served), None
    report, _, new = make(mix=parse_mix("model=1"), model=options())
    assert (report["model"]["failed_items"], len(new)) == (0, 80)
    assert all(server.served[key] == count for key, count in served.items())


def test_replies_are_paid_once(make, server, options):
    first = make("first", mix=parse_mix("model=1"), model=options(prices=(1.0, 2.0)))
    served = dict(server.served)
    second = make("second", mix=parse_mix("model=1"), model=options(prices=(1.0, 2.0)))
    assert dict(server.served) == served
    assert first[1] == second[1]
    for report, _, _ in (first, second):
        assert report["model"]["dollars"] == pytest.approx(len(served) * 120e-6)
    assert second[0]["model"]["cached"] >= len(served)


@pytest.mark.parametrize(("reports_usage", "limit"), [(True, 0.02), (False, 0.2)])
def test_max_cost_is_never_exceeded(make, server, options, reports_usage, limit):
    server.reports_usage = reports_usage
    report, _, new = make(mix=parse_mix("model=1"), model=options(prices=(1.0, 2.0), max_cost=limit))
    model = report["model"]
    assert 0 < model["dollars"] <= limit
    assert model["stopped_items"] > 0
    assert 0 < len(new) < 80
    if reports_usage:
        assert sum(server.served.values()) * 120e-6 <= limit


def test_rate_limits_are_kept(server, options):
    """Requests have the distance of the limit; after a 429, all wait as long as the server asks."""
    requests = PaidRequests(options(requests_per_minute=600))
    for number in range(5):
        requests.ask("s", f"- a red ring slides\n\nQuery: {number}")
    assert min(b - a for a, b in zip(server.times, server.times[1:], strict=False)) > 0.08
    server.times.clear()
    server.script = lambda _, turn: 429 if turn == 0 else None
    PaidRequests(options()).ask("s", "- a red ring slides\n\nQuery: other")
    first, second = server.times
    assert second - first > 0.29


def test_unusable_endpoint(options, server):
    server.script = lambda *_: 401
    with pytest.raises(InputError, match="rejected the API key; set OPENAI_API_KEY"):
        PaidRequests(options()).ask("s", "q")
    with pytest.raises(InputError, match=r"negatives http://127\.0\.0\.1:9/v1: cannot be reached"):
        PaidRequests(options(url="http://127.0.0.1:9/v1")).check()


def test_failing_server_ends_the_run(options, server, monkeypatch):
    """After many failures in a row, no more requests are sent."""
    monkeypatch.setattr(paid, "_FIRST_WAIT_S", 0.0)
    server.script = lambda *_: 500
    requests = PaidRequests(options())
    for number in range(40):
        with pytest.raises(NoReplyError):
            requests.ask("s", f"{number}")
    assert len(server.requests) == 20


def test_max_cost_counts_timeouts(options, server):
    """The server may charge for a request that timed out."""
    server.script = lambda *_: "late"
    requests = PaidRequests(options(prices=(0.0, 1.0), max_cost=0.0021, timeout=0.2))
    with pytest.raises((NoReplyError, MaxCostError)):
        requests.ask("s", "q")
    assert requests.cost == pytest.approx(2 * 1024e-6)
    with pytest.raises(MaxCostError):
        requests.ask("s", "another")


KILLED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from rarft.negatives.requests import ModelOptions, PaidRequests
requests = PaidRequests(ModelOptions(sys.argv[1], "m", cache=sys.argv[2]))
ask = lambda number: requests.ask("You check", f"- a red ring slides\\n\\nQuery: {number}")
print("ready", flush=True)
list(ThreadPoolExecutor(4).map(ask, range(60)))
"""


def test_kill_pays_nothing_twice(server, options):
    """After SIGKILL, only the requests that were in flight, at most one per thread, are sent again."""
    server.delay = 0.05
    command = [sys.executable, "-c", KILLED, options().url, options().cache]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            before = sum(server.served.values())
            deadline = time.monotonic() + 30
            while sum(server.served.values()) < before + 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(server.requests) == 60
    assert sum(server.requests.values()) <= 60 + 3 * 4
    requests = dict(server.requests)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert dict(server.requests) == requests
