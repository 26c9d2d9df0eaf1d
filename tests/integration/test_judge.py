"""The judge, tested with a protocol fake that misbehaves."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from helpers.predictions import REFUSAL, prediction
from rarft.completion import render_completion
from rarft.errors import InputError
from rarft.evaluation import judge as judging
from rarft.evaluation.judge import Judge

GOOD = {"consistency": 4, "categories": ["Object/ObjectExistence"]}
# Replies of the server to a query of that name, in order; the last one repeats.
SCRIPTS = {
    "good": [GOOD],
    "fails once": [500, GOOD],
    "is busy once": [429, GOOD],
    "always fails": [500],
    "is slow": ["slow"],
    "garbage once": ["The rating is 4.", GOOD],
    "garbage": ["The rating is 4."],
    "out of range": [{"consistency": 6, "categories": []}],
    "unknown label": [{"consistency": 3, "categories": ["Sound/Loudness"]}],
    "more than asked": [{**GOOD, "comment": "!"}],
    "nothing": [None],
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        query = body["messages"][1]["content"].splitlines()[0].removeprefix("Query: ")
        server = self.server
        with server.lock:
            script = SCRIPTS.get(query, [GOOD])
            turn = server.requests.setdefault(query, 0)
            server.requests[query] = turn + 1
        self._answer(script[min(turn, len(script) - 1)], server)

    def _answer(self, answer, server):
        if server.refuses:
            self.send_error(401)
            return
        if isinstance(answer, int):
            self.send_error(answer)
            return
        with server.lock:
            server.at_once += 1
            server.max_at_once = max(server.max_at_once, server.at_once)
        time.sleep(3.0 if answer == "slow" else 0.01)
        with server.lock:
            server.at_once -= 1
        content = answer if isinstance(answer, str) else json.dumps(answer)
        choices = [] if answer is None else [{"index": 0, "message": {"role": "assistant", "content": content}}]
        reply = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices,
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }  # fmt: skip
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the client has given up
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.requests, server.at_once, server.max_at_once, server.refuses = (
        threading.Lock(),
        {},
        0,
        0,
        False,
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def make(server, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "_MAX_RETRIES", 1)

    def build(**options):
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        return Judge(url, "m", str(tmp_path / "verdicts.sqlite"), **{"timeout": 1.0, **options})

    return build


def asking(query, kind="refusable", completion=REFUSAL):
    row = prediction(kind, completion, "easy", "Object/ObjectExistence")
    return msgspec.structs.replace(row, sample=msgspec.structs.replace(row.sample, query=query))


def test_judge_retries_and_counts_failures(server, make):
    judge = make()
    rows = judge.judge([asking(query) for query in SCRIPTS])
    judged = {row.sample.query for row in rows if row.consistency is not None}
    assert judged == {"good", "fails once", "is busy once", "garbage once"}
    assert all(row.categories == ["Object/ObjectExistence"] for row in rows if row.sample.query in judged)
    assert all(row.categories is None for row in rows if row.sample.query not in judged)
    assert judge.counts.failed == len(SCRIPTS) - 4
    assert server.requests["garbage"] == 2
    replies = 3 + 2 + 5 * 2  # well-formed; well-formed after a failure; malformed twice
    assert (judge.counts.asked, judge.counts.prompt_tokens) == (replies, replies * 100)
    assert judge.counts.cost((1.0, 10.0)) == pytest.approx(replies * (100 + 100) / 1e6)


def test_judge_caches_by_content(server, make):
    rows = [asking("good"), asking("good"), asking("another")]
    first = make().judge(rows)
    assert server.requests == {"good": 1, "another": 1}
    again = make()
    assert again.judge(rows) == first
    assert server.requests == {"good": 1, "another": 1}
    assert (again.counts.asked, again.counts.cached) == (0, 3)


def test_judge_limits_concurrency(server, make):
    make(concurrency=3).judge([asking(f"query {number}") for number in range(40)])
    assert 1 < server.max_at_once <= 3


def test_judge_ignores_categories_of_answers(server, make):
    answerable = asking("good", "answerable", render_completion("t", "10 to 20"))
    wrong = asking("good too", "refusable", render_completion("t", "10 to 20"))
    first, second = make().judge([answerable, wrong])
    assert (first.consistency, first.categories) == (4, None)
    assert second.categories == []


def test_judge_reports_unusable_endpoint(server, make, tmp_path):
    server.refuses = True
    with pytest.raises(InputError, match="rejected the API key; set OPENAI_API_KEY"):
        make().judge([asking("good")])
    nowhere = Judge("http://127.0.0.1:9/v1", "m", str(tmp_path / "v.sqlite"))
    with pytest.raises(InputError, match=r"judge http://127\.0\.0\.1:9/v1: cannot be reached"):
        nowhere.judge([asking("good")])
