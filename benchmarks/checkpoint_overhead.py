"""Time that checkpoints add to those of the stock trainer: `python benchmarks/checkpoint_overhead.py [--store]`.

Trains the tiny model on a CPU and saves every 50 steps. Measures the seconds spent in this package's part of a save
(manifest, rotation and, with `--store`, waiting for uploads), as a fraction of the run.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from s3_throughput import BUCKET, serve

from rarft import steps
from rarft.training.callbacks.checkpoint import CheckpointCallback


def main() -> None:
    """Train and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    parser.add_argument("--store", action="store_true", help="save to an S3 server on loopback")
    options = parser.parse_args()
    durations: list[float] = []
    on_save = CheckpointCallback.on_save

    def timed_on_save(self: CheckpointCallback, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        on_save(self, *args, **kwargs)
        durations.append(time.perf_counter() - start)

    CheckpointCallback.on_save = timed_on_save  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        (Path(temporary) / "store").mkdir()
        server = serve(Path(temporary) / "store") if options.store else None
        steps.make_dataset("sample", {"train": 64})
        steps.validate("sample/train.json", "valid")
        start = time.perf_counter()
        out = f"{BUCKET}/run" if options.store else "."
        flags = f"--preset tiny --train_data_path valid --max_steps {options.steps} --out {out} --save_strategy steps"
        steps.train([*flags.split(), "--save_steps", "50", "--log_completions_steps", "0"])
        total = time.perf_counter() - start
        if server:
            server.terminate()
    saving = sum(durations)
    print(f"{options.steps} steps in {total:.1f} s, {len(durations)} saves in {saving:.3f} s, {saving / total:.2%}")


if __name__ == "__main__":
    main()
