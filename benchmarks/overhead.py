"""Time that the pipeline adds to its steps: `python benchmarks/overhead.py [--repeats 3]`.

Compares `rarft run` with the same steps as separate commands, alternating and without reuse. Prints medians of wall
and CPU seconds, and the difference per step.
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


def measure(*commands: list[str]) -> tuple[float, float]:
    """Return wall and CPU seconds of `rarft` commands that run one after the other."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run([sys.executable, "-m", "rarft.cli", *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start, cpu


def step_commands(data: Path, out: Path) -> list[list[str]]:
    """Return the pipeline's steps as commands."""
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
    """Measure both and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    runs: dict[str, list[tuple[float, float]]] = {"rarft run": [], "commands": []}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        measure(["make-dataset", "--out", str(data), "--train", "8", "--eval", "4"])
        annotations = ["--annotations", str(data / "train.json"), "--eval-annotations", str(data / "eval.json")]
        for repeat in range(repeats):
            pipeline, separate = Path(temporary) / f"run-{repeat}", Path(temporary) / f"commands-{repeat}"
            runs["rarft run"].append(measure(["run", *annotations, "--out", str(pipeline), "--", *TRAINING]))
            runs["commands"].append(measure(*step_commands(data, separate)))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in runs.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name:<10} wall {wall:6.1f} s  CPU {cpu:6.1f} s")
    wall, cpu = (one - other for one, other in zip(medians["rarft run"], medians["commands"], strict=True))
    print(f"the pipeline adds {wall:.1f} s of wall time ({wall / STEPS:.1f} per step) and {cpu:.1f} s of CPU time")


if __name__ == "__main__":
    main()
