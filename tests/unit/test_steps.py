"""Steps that components call: both files' validation, outcomes of an evaluation, promotion, names of candidates."""

import json
from pathlib import Path

import pytest

from helpers import published_formats
from helpers.riq_items import item, read_lines
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.errors import CheckFailedError, InputError

METRICS = {
    "in_sample": True,
    "relevance": {"f1_avg": 0.75, "confusion": {"tp": 5, "fn": 1, "fp": 2, "tn": 4}},
}


@pytest.fixture
def split(sample_set, tmp_path):
    """Validate the synthetic training split and another file; returns the result and the folder of the other file."""

    def run(eval_annotations="", **options):
        eval_out = tmp_path / "eval"
        result = steps.validate_splits(
            str(sample_set / "train.json"), str(tmp_path / "train"), eval_annotations, str(eval_out), **options
        )
        return result, eval_out

    return run


def test_validate_splits_held_out(split, sample_set):
    result, eval_out = split(str(sample_set / "eval.json"))
    assert not result.in_sample
    assert (result.counts["accepted"], result.eval_counts["accepted"]) == (16, 8)
    assert len(read_lines(eval_out / "riq.jsonl")) == 8


def test_validate_splits_without_eval_data(split, tmp_path):
    result, eval_out = split()
    assert result.in_sample
    assert result.eval_counts == {}
    assert (eval_out / "riq.jsonl").read_bytes() == (tmp_path / "train" / "riq.jsonl").read_bytes()


def test_validate_splits_shared_video(split, sample_set, tmp_path, caplog):
    """One video of the training split makes all metrics in-sample."""
    items = json.loads((sample_set / "eval.json").read_text())
    items += json.loads((sample_set / "train.json").read_text())[:1]
    (tmp_path / "eval.json").write_text(json.dumps(items))
    result, _ = split(str(tmp_path / "eval.json"), eval_video_root=str(sample_set))
    assert result.in_sample
    assert any("1 of 5 evaluation videos are also training videos" in line for line in caplog.messages)


def test_validate_splits_crop_times(tmp_path):
    """Times of an RIQ file are what the setting states; those of a converted file are absolute already."""
    crop = {"video": "a.mp4", "duration": 90.0, "video_start": 40, "video_end": 50}
    (tmp_path / "riq.json").write_text(json.dumps([item(**crop, timestamp=[1.0, 4.0])]))
    record = {**crop, "duration": 10.0, "timestamp": [1.0, 4.0], "sentence": "a dog runs"}
    (tmp_path / "time_r1.json").write_text(json.dumps([record]))
    files = [str(tmp_path / "riq.json"), str(tmp_path / "time_r1.json")]
    steps.convert_splits(*files, str(tmp_path / "converted"), "auto")
    outs = [tmp_path / "out", tmp_path / "eval_out"]
    for crop_times, expected in (("auto", [1.0, 4.0]), ("absolute", [1.0, 4.0]), ("relative", [41.0, 44.0])):
        steps.validate_splits(
            files[0], str(outs[0]), files[1], str(outs[1]), probe="none", crop_times=crop_times,
            converted=str(tmp_path / "converted"),
        )  # fmt: skip
        found = [read_lines(out / "riq.jsonl")[0]["segment"] for out in outs]
        assert found == [expected, [41.0, 44.0]], crop_times
    with pytest.raises(InputError, match="--crop-times none: must be one of auto, absolute, relative"):
        steps.validate(files[0], str(tmp_path / "x"), probe="none", crop_times="none")


def test_validate_splits_nothing_usable(split, sample_set, tmp_path):
    (tmp_path / "eval.json").write_text(json.dumps([item()]))
    with pytest.raises(InputError, match=rf"eval\.json: all queries are quarantined .*no videos under {tmp_path}: "):
        split(str(tmp_path / "eval.json"))


def test_validate_splits_quarantine_limit(split, sample_set, tmp_path):
    items = json.loads((sample_set / "eval.json").read_text())
    (tmp_path / "eval.json").write_text(json.dumps([*items, item()]))
    with pytest.raises(CheckFailedError, match="2 of 10 queries are quarantined, above the limit of 5%"):
        split(str(tmp_path / "eval.json"), eval_video_root=str(sample_set), max_quarantine="5%")


def test_confusion_matrix():
    assert steps.confusion_matrix(METRICS) == [[5, 1], [2, 4]]


def test_headline_metrics(monkeypatch):
    rows = [("F1", 0.5, 0.25, 0.25), ("RA-IoU", 0.5, None, None), ("Judge", None, 0.5, None)]
    monkeypatch.setattr("rarft.evaluation.report.headline_rows", lambda metrics: rows)
    assert steps.headline_metrics(METRICS) == {
        "F1 (in-sample)": 0.5, "F1 (in-sample), base": 0.25, "RA-IoU (in-sample)": 0.5, "Judge (in-sample), base": 0.5
    }  # fmt: skip
    assert "F1" in steps.headline_metrics({**METRICS, "in_sample": False})


@pytest.mark.parametrize(
    ("destination", "passed", "promoted"), [("", True, ""), ("final", False, ""), ("final", True, "final")]
)
def test_promote_if_passed(monkeypatch, destination, passed, promoted):
    monkeypatch.setattr(steps, "promote", lambda checkpoint, evaluation, destination: destination)
    assert steps.promote_if_passed("checkpoint", "evaluation", destination, passed) == promoted


def test_parse_compare():
    assert steps.parse_compare("") == []
    assert steps.parse_compare("tiny, sft=s3://runs/a=b/c ,") == ["tiny", "sft=s3://runs/a=b/c"]
    assert steps.split_name("sft=s3://runs/a=b/c") == ("sft", "s3://runs/a=b/c")
    assert steps.split_name("/runs/a=b/c") == ("", "/runs/a=b/c")


def test_fingerprint_candidates(tmp_path):
    predictions = tmp_path / "p.jsonl"
    predictions.write_text("{}\n")
    assert steps.fingerprint_candidates([]) == ""
    first = steps.fingerprint_candidates(["tiny", str(predictions)])
    predictions.write_text("{} \n")
    assert steps.fingerprint_candidates(["tiny", str(predictions)]) != first
    assert steps.fingerprint_candidates(["a=tiny"]) != steps.fingerprint_candidates(["b=tiny"])


@pytest.mark.parametrize("name", ["base", "checkpoint"])
def test_fingerprint_candidates_reserved_name(name):
    with pytest.raises(InputError, match=f"the name {name} is already used"):
        steps.fingerprint_candidates([f"{name}=tiny"])


def test_run_step_requires_accelerators():
    with pytest.raises(InputError, match="64"):
        steps.run_step("embed", {}, accelerators=64)


def test_convert_splits(sample_set, validated, tmp_path):
    """Both files are converted and validated with the videos next to the original; RIQ files are left as they are."""
    queries = [
        (Path(one.video).name, one.query, one.segment, one.duration)
        for one in read_samples(str(validated))
        if one.segment
    ]
    (tmp_path / "train.txt").write_text(published_formats.charades_sta(queries))
    for source_format, expected in (("charades-sta", {"records": 8, "eval_records": 8}), ("auto", {"records": 8})):
        out = tmp_path / source_format
        held_out = str(tmp_path / "train.txt") if source_format != "auto" else str(sample_set / "eval.json")
        roots = (str(sample_set / "videos"), "")
        counts = steps.convert_splits(str(tmp_path / "train.txt"), held_out, str(out), source_format, "", *roots)
        assert "video_not_found" not in counts
        first = read_lines(out / "annotations.jsonl")[0]
        assert first["video"] == str(sample_set / "videos" / queries[0][0])
        assert expected.items() <= counts.items()
        assert json.loads((out / "conversion.json").read_text()) == {"format": source_format, "counts": counts}
        arguments = (str(tmp_path / "train.txt"), str(out / "data"), held_out, str(out / "eval"))
        result = steps.validate_splits(*arguments, str(sample_set / "videos"), converted=str(out))
        assert (result.counts["quarantined"], result.in_sample) == (0, source_format != "auto")
        assert result.eval_counts["queries"] == 8


def test_convert_splits_riq(sample_set, tmp_path):
    assert steps.convert_splits(str(sample_set / "train.json"), "", str(tmp_path / "out"), "riq") == {}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["conversion.json"]
    arguments = (str(sample_set / "train.json"), str(tmp_path / "data"), "", str(tmp_path / "eval"))
    assert steps.validate_splits(*arguments, converted=str(tmp_path / "out")).counts["queries"] == 16


def test_fingerprint_of_files(sample_set, tmp_path):
    """The durations and a user's own format are inputs, too."""
    (tmp_path / "durations.json").write_text("{}")
    annotations, files = str(sample_set / "train.json"), [str(tmp_path / "durations.json")]
    first = steps.fingerprint(annotations, files=files)
    assert steps.fingerprint(annotations, files=files) == first
    (tmp_path / "durations.json").write_text('{"a": 1}')
    assert steps.fingerprint(annotations, files=files)[0] != first[0]
