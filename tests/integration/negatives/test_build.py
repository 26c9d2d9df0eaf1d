"""Negatives of synthetic scenes, for which it is known whether a query is absent."""

import json

import pytest

from helpers.scenes import facts
from rarft import steps
from rarft.completion import parse_completion, render_completion
from rarft.errors import InputError
from rarft.negatives.config import NegativeSettings, parse_mix
from rarft.negatives.negative import reads_as_refusal

MIXES = ["shuffled=1", "rules=1", "shuffled=1,rules=1"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("No moment matches the query: the ring is red, not blue.", True),
        ("There are only 2 people, not 3.", True),
        ("No moment shows 'a dog runs from 3.5 to 7.0'.", False),
        ("No moment shows 'a dog runs from five to ten seconds'.", False),
    ],
)
def test_reasons_that_quote_times(reason, expected):
    assert reads_as_refusal(reason) == expected


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seed", [0, 1])
def test_all_are_absent(make, truth, mix, seed):
    report, _, new = make(per_item=3, mix=parse_mix(mix), seed=seed)
    assert report["counts"]["made"] == len(new) > 150
    absent = [facts(row["query"]) not in truth[row["video"]] for row in new]
    assert sum(absent) / len(absent) == 1.0


def test_rows_are_valid_negatives(make, truth):
    report, rows, new = make(per_item=2)
    for row in new:
        assert (row["task_type"], row["segment"]) == ("refusable", None)
        assert parse_completion(render_completion("", row["gt_answer"])).refuses
        assert row["reference_queries"][0] == row["extra"]["q_origin"]
        assert all(facts(query) in truth[row["video"]] for query in row["reference_queries"])
        assert row["difficulty"] in {"easy", "medium", "hard"}
        assert row["categories"]
        assert {"kind", "seed", "source"} <= row["extra"]["negative"].keys()
    assert {row["extra"]["negative"]["kind"] for row in new} == {"shuffled", "rules"}
    assert len({row["id"] for row in rows}) == len(rows)
    first = {}
    for row in new:
        first.setdefault(row["source"]["item"], row["gt_answer"])
    answerable = [row for row in rows if row["task_type"] == "answerable"]
    assert [row["contrast_answer"] for row in answerable] == [first[row["source"]["item"]] for row in answerable]
    places = [tuple(row["source"].values()) for row in rows]
    assert len(set(places)) == len(places)
    assert sum(report["kinds"].values()) == len(new)


def test_same_seed_same_bytes(make, tmp_path):
    make("first", per_item=3)
    make("second", per_item=3)
    make("third", per_item=3, seed=1)
    contents = [(tmp_path / name / "riq.jsonl").read_bytes() for name in ("first", "second", "third")]
    assert contents[0] == contents[1] != contents[2]
    reports = [(tmp_path / name / "riq.report.json").read_bytes() for name in ("first", "second")]
    assert reports[0] == reports[1]


def test_validation_accepts_result_unchanged(make, tmp_path):
    make(per_item=2)
    report = steps.validate(str(tmp_path / "negatives" / "riq.jsonl"), str(tmp_path / "again"), probe="none")
    assert report["counts"]["accepted"] == report["counts"]["queries"]
    assert (tmp_path / "again" / "riq.jsonl").read_bytes() == (tmp_path / "negatives" / "riq.jsonl").read_bytes()


def test_negatives_of_negatives_are_new(make, data, tmp_path):
    """A second run keeps all rows and repeats no query of a video."""
    _, rows, _ = make("first", per_item=1, mix=parse_mix("rules=1"))
    data.write_bytes((tmp_path / "first" / "riq.jsonl").read_bytes())
    _, again, _ = make("second", per_item=1, mix=parse_mix("rules=1"), seed=9)
    assert {row["id"] for row in rows} < {row["id"] for row in again}
    pairs = [(row["video"], row["query"]) for row in again if row["task_type"] == "refusable"]
    assert len(set(pairs)) == len(pairs)


def test_near_duplicates_are_dropped_and_shown(make):
    report, _, new = make(mix=parse_mix("shuffled=1"), duplicate=0.6)
    assert report["near_duplicates"]["dropped"] > 0
    assert all(similarity >= 0.6 for _, _, similarity in report["near_duplicates"]["examples"])
    assert all(row["extra"]["negative"]["similarity"] < 0.6 for row in new)


def test_kinds_take_turns():
    settings = NegativeSettings(per_item=3, mix={"shuffled": 2.0, "rules": 1.0})
    assert settings.assign_kinds(2) == [{"shuffled": 2, "rules": 1}] * 2
    assigned = NegativeSettings(per_item=1, mix={"shuffled": 3.0, "rules": 1.0}).assign_kinds(100)
    assert sum(each["rules"] for each in assigned) == 25


@pytest.mark.parametrize("mix", ["", "rules", "rules=-1", "rules=nan", "words=1", "rules=1,rules=2", "rules=0"])
def test_mix_rejects_mistakes(main, data, mix):
    code, _, errors = main("negatives", data, "--out", "x.jsonl", "--mix", mix)
    assert code == 2
    assert "--mix" in errors


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--mix", "model=1"], "the kind model requires --url and --model"),
        (["--url", "http://x"], "--url, --model: only one is given; pass both"),
        (["--lexicon", "missing.yaml"], "--lexicon missing.yaml: no such file"),
        (
            ["--mix", "model=1", "--url", "http://x", "--model", "m", "--max-cost", "1"],
            "--max-cost: requires --prices",
        ),
    ],
)
def test_command_rejects_mistakes(main, data, flags, problem):
    code, _, errors = main("negatives", data, "--out", "x.jsonl", *flags)
    assert code == 2
    assert problem in errors


def test_command_with_own_lexicon(main, data, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "groups: {colors: {category: Attribute/AttributeValue, part: adjective, words: [red, green, blue, yellow]}}"
    )
    flags = ["--mix", "rules=1", "--lexicon", "mine.yaml", "--quiet"]
    code, output, errors = main("negatives", data, "--out", "mine/new.jsonl", *flags)
    assert code == 0, errors
    assert "refusable queries for 80 items" in output
    assert output.splitlines()[-2:] == ["mine/new.jsonl", "report: mine/new.report.html"]
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "new.jsonl", "new.rejected.jsonl", "new.report.html", "new.report.json",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "mine" / "new.jsonl").read_text().splitlines()]
    assert {name for row in rows for name in row["categories"]} == {"Attribute/AttributeValue"}
    assert "Warning" in (tmp_path / "mine" / "new.report.html").read_text() or "AUROC" in output


def test_split_data_is_rejected(data):
    (data.parent / "riq.train.jsonl").write_bytes(data.read_bytes())
    with pytest.raises(InputError, match=r"riq\.train\.jsonl"):
        steps.add_negatives(str(data.parent), str(data.parent / "x.jsonl"), mix="rules=1")


def test_output_must_be_another_jsonl_file(main, data, tmp_path):
    for out, problem in (
        ("x", "--out x: must be a file that ends in .jsonl, such as x/riq.jsonl"),
        (str(tmp_path / "out"), f"--out {tmp_path / 'out'}: must be a file that ends in .jsonl"),
        (str(data), f"data {data}: is also --out; write to another file"),
    ):
        code, _, errors = main("negatives", data, "--out", out, "--mix", "rules=1")
        assert (code, problem in errors) == (2, True), errors
    assert not (tmp_path / "x").exists()


def test_data_without_answerable_queries(data, tmp_path):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    refusable = {**rows[0], "task_type": "refusable", "segment": None, "segments": []}
    data.write_text(json.dumps(refusable) + "\n")
    with pytest.raises(InputError, match="contains no answerable query"):
        steps.add_negatives(str(data), str(tmp_path / "x.jsonl"), mix="rules=1")
