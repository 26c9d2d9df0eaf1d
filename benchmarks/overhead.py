"""What the pipeline adds to its steps on this machine: `rarft run` against the same steps by their own commands.

    python benchmarks/overhead.py [--repeats 3]

Both start from nothing each time, one after the other. Wall and CPU seconds, medians, and the difference a step.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAINING = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--num_generations", "4"]
STEPS = 6


def measured(*commands: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of commands of `rarft`, one after the other."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run([sys.executable, "-m", "rarft.cli", *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def by_hand(data: Path, out: Path) -> list[list[str]]:
    """The pipeline's steps as commands."""
    checkpoint = str(out / "checkpoints" / "rarft" / "checkpoint-final")
    return [
        ["validate", str(data / "train.json"), "--out", str(out / "train")],
        ["validate", str(data / "eval.json"), "--out", str(out / "eval")],
        ["embed", str(out / "train"), "--out", str(out / "embeddings")],
        [
            *("train", "--preset", "tiny", "--train_data_path", str(out / "train")),
            *("--embeddings", str(out / "embeddings"), "--out", str(out), *TRAINING),
        ],
        [
            *("evaluate", "--checkpoint", checkpoint, "--data", str(out / "eval")),
            *("--compare", "tiny", "--out", str(out / "evaluation")),
        ],
    ]


def main() -> None:
    """Measure both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    runs: dict[str, list[tuple[float, float]]] = {"rarft run": [], "commands": []}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        measured(["sample", "--out", str(data), "--train", "8", "--eval", "4"])
        for repeat in range(repeats):
            whole, alone = Path(temporary) / f"run-{repeat}", Path(temporary) / f"commands-{repeat}"
            annotations = [
                *("--annotations", str(data / "train.json")),
                *("--eval-annotations", str(data / "eval.json")),
            ]
            runs["rarft run"].append(measured(["run", *annotations, "--out", str(whole), "--", *TRAINING]))
            runs["commands"].append(measured(*by_hand(data, alone)))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in runs.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name:<10} wall {wall:6.1f} s  CPU {cpu:6.1f} s")
    wall, cpu = (one - other for one, other in zip(medians["rarft run"], medians["commands"], strict=True))
    print(f"the pipeline adds {wall:.1f} s of wall time ({wall / STEPS:.1f} a step), {cpu:.1f} s of CPU")


if __name__ == "__main__":
    main()
