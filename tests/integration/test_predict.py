"""`rarft predict` on this machine."""

import json

import pytest

from helpers.riq_items import read_lines
from rarft import steps
from rarft.completion import parse_completion


@pytest.fixture(scope="module")
def predicted(validated, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted")
    steps.evaluate("tiny-truthful", str(validated), str(out))
    return read_lines(out / "predictions.jsonl")


def test_predict_equals_evaluation(main, predicted):
    refusal = next(row for row in predicted if parse_completion(row["completion"]).refuses)
    segment = next(row for row in predicted if parse_completion(row["completion"]).segment)
    for row in (refusal, segment):
        command = ["predict", "--checkpoint", "tiny-truthful", row["sample"]["video"], row["sample"]["query"]]
        code, output, _ = main(*command, "--json")
        answer = json.loads(output)
        parsed = parse_completion(row["completion"])
        assert (code, answer["completion"]) == (0, row["completion"])
        assert answer["segment"] == (list(parsed.segment) if parsed.segment else None)
        assert answer["reason"] == (parsed.answer if parsed.refuses else None)
        assert answer["corrected_query"] == parsed.corrected_query
        text = main(*command)[1]
        assert text.startswith("refused: " if parsed.refuses else "segment: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "tiny", "./nothing.mp4"], "nothing.mp4"),
        (["--checkpoint", "./nothing", "x.mp4"], "--checkpoint ./nothing: no such checkpoint"),
    ],
)
def test_predict_rejects(main, arguments, message):
    code, _, error = main("predict", *arguments, "a query")
    assert code == 2
    assert message in error.splitlines()[-1]


def test_predict_without_server(main, sample_set):
    video = next((sample_set / "videos").glob("*.mp4"))
    code, _, error = main("predict", "--checkpoint", "tiny", video, "a query", "--endpoint", "http://localhost:9/v1")
    assert code == 2
    assert "--endpoint http://localhost:9: " in error
