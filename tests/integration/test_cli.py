import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "kfp", "sentence_transformers", "deepspeed")


def imported_by(code):
    """Which heavy libraries are imported by a piece of code, run in a process of its own."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint([n for n in {HEAVY} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_help_and_validation_import_nothing_heavy(sample_set, tmp_path):
    assert imported_by("from rarft.cli.main import main; main(['--help'])") == "[]"
    arguments = ["validate", str(sample_set / "train.json"), "--out", str(tmp_path)]
    assert imported_by(f"from rarft.cli.main import main; main({arguments!r})") == "[]"
    assert (tmp_path / "report.json").exists()


def test_the_first_step_of_the_pipeline_imports_nothing_heavy(sample_set, tmp_path):
    # Its image holds no torch.
    arguments = [str(sample_set / "train.json"), "", "", "", "", "tiny-truthful", "", str(tmp_path / "out"), ""]
    assert imported_by(f"from components.fingerprint.run import run; run(*{arguments!r})") == "[]"
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    "command",
    [
        "sample",
        "validate",
        "embed",
        "train",
        "evaluate",
        "promote",
        "score",
        "run",
        "compile",
        "submit",
        "cancel",
        "doctor",
    ],
)  # fmt: skip
def test_every_command_has_help(main, command):
    code, output, _ = main(command, "--help")
    assert code == 0
    assert f"rarft {command}" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'[{"video": "a.mp4", "GRPO"', "is no complete JSON list"), (b"", "is empty"), (None, "no such file")],
)
def test_unreadable_annotations_end_with_code_2_and_one_line(cli, tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    done = cli("validate", path, "--out", tmp_path / "out")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("rarft")]
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["validate", "a.json"], "--out"),
        (["validate", "a.json", "--out", "o", "--tolerance", "-1"], "no number of seconds"),
        (["sample", "--out", "o", "--train", "many"], "no whole number"),
        (["evaluate", "--checkpoint", "tiny", "--data", "missing.jsonl", "--out", "o"], "no such file"),
        (["run", "--annotations", "missing.json", "--out", "o"], "no such file"),
        (["embed", ".", "--out", "o"], "riq.jsonl: no such file"),
    ],
)
def test_bad_usage_ends_with_code_2_and_one_line(main, tmp_path, arguments, message):
    code, _, error = main(*arguments)
    assert code == 2
    (line,) = error.strip().splitlines()
    assert message in line
    assert not (tmp_path / "o").exists()


def test_a_folder_without_videos_is_told(main, sample_set, tmp_path):
    (tmp_path / "none").mkdir()
    code, _, error = main("validate", sample_set / "train.json", "--video-root", "none", "--out", "out")
    assert code == 2
    assert "holds no video" in error.splitlines()[-1]
