import os
import subprocess
import sys

import pytest

from rarft.cli.main import set_library_defaults
from rarft.cli.parser import spell_flags

HEAVY = ("torch", "transformers", "trl", "kfp", "sentence_transformers", "deepspeed")
COMMANDS = (
    "make-dataset", "validate", "embed", "train", "evaluate", "promote", "score", "run", "compile", "submit", "cancel",
    "doctor",
)  # fmt: skip


def imported_by(code):
    """Return the heavy libraries that a piece of code imports, run in its own process."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint([n for n in {HEAVY} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_help_and_validate_import_nothing_heavy(sample_set, tmp_path):
    assert imported_by("from rarft.cli.main import main; main(['--help'])") == "[]"
    arguments = ["validate", str(sample_set / "train.json"), "--out", str(tmp_path)]
    assert imported_by(f"from rarft.cli.main import main; main({arguments!r})") == "[]"
    assert (tmp_path / "report.json").exists()


def test_fingerprint_imports_nothing_heavy(sample_set, tmp_path):
    """The image of this component contains no torch."""
    names = ("video_root", "eval_annotations", "eval_video_root", "durations", "encoder", "gates", "final_uri")
    inputs = {**dict.fromkeys(names, ""), "annotations": str(sample_set / "train.json"), "format": "riq"}
    inputs |= {"compare": "tiny-truthful", "output_uri": str(tmp_path / "out")}
    code = f"from components.fingerprint.component import fingerprint; fingerprint.python_func(**{inputs!r})"
    assert imported_by(code) == "['kfp']"
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, None),
    ],
)
def test_memory_settings_of_torch(monkeypatch, variables, expected):
    monkeypatch.setattr(os, "environ", variables)
    set_library_defaults()
    assert variables.get("PYTORCH_ALLOC_CONF") == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(main, command):
    code, output, _ = main(command, "--help")
    assert code == 0
    assert f"rarft {command}" in output
    assert "--quiet" in output
    assert "--verbose" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'[{"video": "a.mp4", "GRPO"', "truncated or invalid JSON list"), (b"", "empty"), (None, "no such file")],
)
def test_validate_unreadable_file(cli, tmp_path, content, message):
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
        (["validate", "a.json", "--out", "o", "--tolerance", "-1"], "--tolerance: must be a non-negative number"),
        (["validate", "a.json", "--out", "o", "--split", "1.5"], "--split: must be between 0 and 1, not '1.5'"),
        (["validate", "a.json", "--out", "o", "--max-quarantine", "\n"], "--max-quarantine: must be a percentage"),
        (["validate", "a.json", "--out", "o", "x\ny"], "rarft validate: unrecognized arguments: x y; see"),
        (["make-dataset", "--out", "o", "--train", "many"], "--train: must be a non-negative integer, not 'many'"),
        (["evaluate", "--checkpoint", "tiny", "--out", "o", "--batch-size", "0"], "must be a positive integer"),
        (["evaluate", "--checkpoint", "tiny", "--data", "missing.jsonl", "--out", "o"], "no such file"),
        (["run", "--annotations", "missing.json", "--out", "o"], "no such file"),
        (["run", "--annotations", "a.json", "--out", "o", "--max_steps", "2"], "come last, after `--`"),
        (["embed", ".", "--out", "o"], "riq.jsonl: no such file"),
        (["validate", "a.json", "--out", "o", "--video-rot", "v"], "did you mean --video-root?"),
    ],
)
def test_bad_usage(main, tmp_path, arguments, message):
    code, _, error = main(*arguments)
    assert code == 2
    line = error.strip().splitlines()[-1]
    assert line.startswith("rarft")
    assert message in line
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["validate annotations.json --out o", "train --train_data_path riq.jsonl"])
def test_deleted_current_folder(main, monkeypatch, tmp_path, command):
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    code, _, errors = main(*command.split())
    assert code == 2
    assert errors == f"rarft {command.split()[0]}: current folder: deleted; change to a folder that exists\n"


def test_validate_folder_without_videos(main, sample_set, tmp_path):
    (tmp_path / "none").mkdir()
    code, _, error = main("validate", sample_set / "train.json", "--video-root", "none", "--out", "out")
    assert code == 2
    assert "contains no video" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "separator", "expected"),
    [
        (["--batch_size", "4"], "-", ["--batch-size", "4"]),
        (["--max-steps=2"], "_", ["--max_steps=2"]),
        (["a_b", "-p", "final_uri=a-b", "--", "-1"], "-", ["a_b", "-p", "final_uri=a-b", "--", "-1"]),
    ],
)
def test_spell_flags(arguments, separator, expected):
    assert spell_flags(arguments, separator) == expected


@pytest.mark.parametrize("flag", ["--video-fps=1", "--video_fps=1"])
def test_validate_takes_both_spellings(main, sample_set, flag):
    assert main("validate", sample_set / "train.json", "--out", "out", flag)[0] == 0


@pytest.mark.parametrize(
    ("flags", "lines"),
    [([], {"training: INFO"}), (["--quiet"], set()), (["--verbose"], {"training: INFO", "training: DEBUG"})],
)
def test_verbosity(main, monkeypatch, flags, lines):
    """Both kinds of commands: those with their own parser, and those that take flags of training."""
    import logging

    from rarft import steps

    def log(*_, **__):
        logger = logging.getLogger("rarft.training.train")
        logger.info("INFO")
        logger.debug("DEBUG")
        return ""

    monkeypatch.setattr(steps, "promote", log)
    monkeypatch.setattr(steps, "train", log)
    for arguments in (["promote", "--checkpoint", "c", "--evaluation", "e", "--to", "t"], ["train"]):
        code, _, error = main(*arguments, *flags)
        assert code == 0
        assert {line.partition(" ")[2] for line in error.splitlines()} == lines
