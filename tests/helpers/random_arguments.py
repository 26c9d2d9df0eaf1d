"""Random argument lists of all commands, made from the parsers' own types, and their run up to the work itself.

`python -m helpers.random_arguments SEED COUNT FOLDER` runs COUNT of them in one process, in FOLDER, which has
`train.json` and `riq.jsonl`. It prints a JSON list of [arguments, exit code, last line, problem or null].
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from helpers.paths import ROOT
from rarft.cli.training import TRAINING_COMMANDS

# Functions that begin the work of a command, after its checks. `doctor` and `cancel` have no others.
WORK = (
    "rarft.steps.validate_file", "rarft.steps.convert_file", "rarft.steps.export_ms_swift", "rarft.steps.doctor",
    "rarft.synthetic.dataset.write_split", "rarft.embeddings.store.build_store", "rarft.rewards.replay.replay",
    "rarft.evaluation.evaluate.evaluate", "rarft.evaluation.answer.answer", "rarft.evaluation.promote.promote",
    "rarft.cluster.cancel.cancel", "rarft.training.prepare.check_sizes",
    "rarft.training.cache_videos.read_samples", "rarft.training.inspect_prompt.read_samples",
    "rarft.negatives.build.make_all", "rarft.reporting.training_curves.render_runs",
    "pipelines.local.run_pipeline", "pipelines.compile.compile_pipeline", "pipelines.watch.watch",
)  # fmt: skip
NUMBERS = [
    "0",
    "1",
    "2",
    "-1",
    "3.5",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "1e-400",
    "9" * 400,
    "٣",
    "0x10",
    "1_000",
    " 4 ",
]
PATHS = [
    "train.json", "riq.jsonl", ".", "o", "o/new", "o/new.jsonl", "missing.json",
    "s3://bucket/key", "s3:/bucket/key", "S3://b", "s3://",
    "file:///missing%20folder/a.json", "file:o", "gs://b/k", "-", "./-", "/dev/null", "~", "o/" + "x" * 300, "tiny",
]  # fmt: skip
TEXTS = [
    "", " ", "a", "a b", "\n", "ä", "\udcff", "=", "a=b", "%s", "{}", "[]", '{"a": 1}', "null", "true", "false",
    "none", "auto", "all", "@", "@train.json", "@missing", "../../x", "5%", "100%%", "-5%", "x" * 5000, "org/model", "http://",
    "http://127.0.0.1:9", "https://user:secret@127.0.0.1:9/", "a>=1",
    "relevance.f1_avg>=base", ">=", "a:b", "a.py:f",
]  # fmt: skip


def _values(action: argparse.Action, rng: random.Random) -> list[str]:
    """Return random values for an option, mostly of its type."""
    pools = [NUMBERS, PATHS, TEXTS]
    likely = TEXTS + PATHS
    kind = getattr(action.type, "__name__", "str")
    if action.choices is not None:
        likely = [str(choice) for choice in action.choices]
    elif kind in ("bool", "string_to_bool"):
        likely = ["true", "false", "1", "on", "yes"]
    elif kind not in ("str", "extended", "quarantine_limit"):
        likely = NUMBERS
    elif isinstance(action.default, bool | int | float):
        likely = [*NUMBERS, "true", "false", str(action.default)]
    count = {None: 1, "?": rng.randint(0, 1), "*": rng.randint(0, 3), "+": rng.randint(1, 3)}.get(
        action.nargs, action.nargs
    )
    if action.dest == "assignments":
        return [f"{rng.choice(parameter_names())}={rng.choice(rng.choice([*pools, TEXTS]))}"]
    return [rng.choice(likely if rng.random() < 0.7 else rng.choice(pools)) for _ in range(int(count))]


def parameter_names() -> list[str]:
    from pipelines.rarft import rarft_pipeline

    return [*rarft_pipeline.pipeline_spec.root.input_definitions.parameters, "no_such_parameter", ""]


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command; those of the training commands are made separately."""
    from rarft.cli.main import build_parser
    from rarft.training.settings_parser import _get_parser

    return {**build_parser()[1].parsers, **{name: _get_parser() for name in TRAINING_COMMANDS}}


def draw(parser: argparse.ArgumentParser, name: str, rng: random.Random) -> list[str]:
    """Return a random argument list of a command."""
    actions = [action for action in parser._actions if action.dest not in ("help", "version")]
    positional = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    required = [action for action in options if action.required]
    chosen = [action for action in required if rng.random() < 0.95]
    chosen += rng.sample(options, min(len(options), rng.choice([0, 1, 1, 2, 3, 6])))
    words = [value for action in positional for value in _values(action, rng) if rng.random() < 0.95]
    rng.shuffle(chosen)
    if name in TRAINING_COMMANDS:
        words += ["--preset", "tiny", "--train_data_path", "riq.jsonl"] if rng.random() < 0.9 else []
    for action in chosen:
        flag = rng.choice(action.option_strings)
        values = [] if action.nargs == 0 else _values(action, rng)
        words += [f"{flag}={values[0]}"] if len(values) == 1 and rng.random() < 0.5 else [flag, *values]
    if rng.random() < 0.05:
        words.insert(rng.randint(0, len(words)), rng.choice(["--no-such-flag", "--", "-x", "extra", "--verbose"]))
    return [name, *words]


def _exit(*_: Any, **__: Any) -> None:
    raise SystemExit(0)


@contextlib.contextmanager
def _without_work():
    """Replace the work of all commands by the end of the process."""
    replaced = dict.fromkeys(WORK, _exit)
    replaced["rarft.training.prepare._read_data"] = lambda settings: ([], [])
    replaced["rarft.training.prepare._load_references"] = lambda settings: None
    replaced["rarft.training.prepare.prepare_deepspeed"] = lambda use_cpu: None
    replaced["rarft.steps._load_encoder"] = lambda name: SimpleNamespace(name=name)
    replaced["rarft.steps.exit_with_parent"] = lambda: None
    replaced["pipelines.submit.compile_pipeline"] = lambda path, profile: shutil.copy(
        ROOT / "pipelines/rarft.yaml", path
    )
    previous = []
    for name, replacement in replaced.items():
        module, _, attribute = name.rpartition(".")
        loaded = importlib.import_module(module)
        previous.append((loaded, attribute, getattr(loaded, attribute)))
        setattr(loaded, attribute, replacement)
    try:
        yield
    finally:
        for loaded, attribute, original in previous:
            setattr(loaded, attribute, original)


def run_one(arguments: list[str]) -> tuple[int, str, str | None]:
    """Run a command in this process; return its exit code, its last line, and what is wrong with how it ended."""
    from rarft.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    code, problem = 0, None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        except BaseException:
            problem = traceback.format_exc()
    lines = err.getvalue().strip().splitlines()
    last = lines[-1] if lines else ""
    if problem is None and ("; traceback: " in last or "Traceback" in err.getvalue()):
        problem = last
    if problem is None and code == 2 and not last.startswith("rarft "):
        problem = f"the last line is not a message: {last}"
    if problem is None and code not in (0, 1, 2):
        problem = f"exit code {code}"
    return code, last, problem


def main() -> None:
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    from rarft.storage import s3

    os.chdir(folder)
    rng = random.Random(seed)
    s3._REQUEST_ATTEMPTS, s3._TRANSFER_ATTEMPTS, s3._CONNECT_TIMEOUT_S = 1, 1, 1.0
    parsers = command_parsers()
    names = sorted(parsers)
    results = []
    environment = dict(os.environ)
    with _without_work():
        for number in range(count):
            name = names[number % len(names)]
            arguments = draw(parsers[name], name, rng)
            sys.stdin = SimpleNamespace(buffer=io.BytesIO(b"[]"))
            results.append([arguments, *run_one(arguments)])
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
