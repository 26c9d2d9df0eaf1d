"""Promotion of checkpoints that passed their gates, atomically, to a disk and to a store."""

import json

import boto3
import pytest

from helpers.s3_servers import KEYS, serving
from rarft import steps
from rarft.checkpoint.source import CHECKPOINT_JSON
from rarft.errors import CheckFailedError, InputError
from rarft.storage.location import S3Folder
from rarft.storage.manifest import verify_folder
from rarft.storage.sync import download_folder


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()

    def write(passed, evaluated="tiny"):
        gates = [{"gate": "ra_iou.mean>=0.9", "passed": passed, "reason": None if passed else "ra_iou.mean>=0.9: 0.5"}]
        (folder / "metrics.json").write_text(json.dumps({"passed": passed, "gates": gates, "evaluated": evaluated}))
        return str(folder)

    return write


def test_promote_replaces_an_earlier_checkpoint(evaluation, tmp_path):
    final = tmp_path / "final"
    final.mkdir()
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (final / name).write_text("earlier")
    assert steps.promote("tiny", evaluation(True), str(final)) == str(final)
    manifest = verify_folder(final, CHECKPOINT_JSON)
    assert manifest["promoted_from"] == "tiny"
    assert {"metrics.json", "config.json", "model.safetensors"} <= manifest["files"].keys()
    assert {path.name for path in final.iterdir()} == {*manifest["files"], CHECKPOINT_JSON}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_promote_rejects_failed_gates(evaluation, tmp_path):
    with pytest.raises(CheckFailedError, match=r"is not promoted: ra_iou\.mean>=0\.9: 0\.5"):
        steps.promote("tiny", evaluation(False), str(tmp_path / "final"))
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize(
    ("checkpoint", "content", "message"),
    [
        ("tiny", "{}", "was not written by `rarft evaluate`"),
        ("tiny", "[", "was not written by `rarft evaluate`"),
        ("nothing-here/at/all", '{"passed": true, "gates": [], "evaluated": "tiny"}', "no such checkpoint"),
        ("org/model", '{"passed": true, "gates": [], "evaluated": "org/model"}', "is a Hub model"),
        ("tiny", '{"passed": true, "gates": [], "evaluated": "tiny-truthful"}', "evaluates tiny-truthful, not tiny"),
    ],
)
def test_promote_rejects_bad_input(tmp_path, checkpoint, content, message):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(InputError, match=message):
        steps.promote(checkpoint, str(tmp_path), str(tmp_path / "final"))


def test_promote_checks_destination_and_manifest(evaluation, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "others").mkdir()
    with pytest.raises(InputError, match="contains others and is not a checkpoint"):
        steps.promote("tiny", evaluation(True), str(tmp_path / "models"))
    source = tmp_path / "final"
    steps.promote("tiny", evaluation(True), str(source))
    (source / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"model\.safetensors has 4 bytes"):
        steps.promote(str(source), evaluation(True, str(source)), str(tmp_path / "next"))


def test_promote_reports_rejected_store_key(evaluation, tmp_path, monkeypatch):
    (tmp_path / "objects" / "models").mkdir(parents=True)
    with serving("rclone", tmp_path / "objects") as port:
        wrong = {**KEYS, "AWS_ACCESS_KEY_ID": "somebody", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        for name, value in wrong.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=r"--to s3://models/final: cannot be written \(.*credentials"):
            steps.promote("tiny", evaluation(True), "s3://models/final")


def test_promote_into_a_store(evaluation, tmp_path, monkeypatch):
    (tmp_path / "objects").mkdir()
    with serving("rclone", tmp_path / "objects") as port:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            monkeypatch.setenv(name, value)
        boto3.session.Session().client("s3").create_bucket(Bucket="models")
        steps.promote("tiny", evaluation(True), "s3://models/final")
        steps.promote("tiny-truthful", evaluation(True, "tiny-truthful"), "s3://models/final")
        download_folder(S3Folder("s3://models/final"), tmp_path / "got", CHECKPOINT_JSON)
    assert verify_folder(tmp_path / "got", CHECKPOINT_JSON)["promoted_from"] == "tiny-truthful"
