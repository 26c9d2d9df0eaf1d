"""What complete checkpoints cost beside stock ones: the tiny model, saved every 50 steps.

`python benchmarks/saving.py [--store]`: one run on a CPU; the seconds spent in what is ours (manifest, rotation, and
with `--store` waiting for the object store), as a share of the whole run.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from transfer import BUCKET, serve

from rarft import steps
from rarft.training.callbacks.checkpoint import CheckpointCallback


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--store", action="store_true", help="checkpoints go to an S3 server on loopback")
    options = parser.parse_args()
    spent: list[float] = []
    save = CheckpointCallback.on_save

    def timed(self: CheckpointCallback, *arguments: Any, **named: Any) -> None:
        began = time.perf_counter()
        save(self, *arguments, **named)
        spent.append(time.perf_counter() - began)

    CheckpointCallback.on_save = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        (Path(temporary) / "store").mkdir()
        server = serve(Path(temporary) / "store") if options.store else None
        steps.make_dataset("sample", {"train": 64})
        steps.validate("sample/train.json", "valid")
        began = time.perf_counter()
        out = f"{BUCKET}/run" if options.store else "."
        flags = f"--preset tiny --train_data_path valid --max_steps {options.steps} --out {out} --save_strategy steps"
        steps.train([*flags.split(), "--save_steps", "50", "--log_completions_steps", "0"])
        whole = time.perf_counter() - began
        if server:
            server.terminate()
    ours = sum(spent)
    print(f"{options.steps} steps in {whole:.1f} s, {len(spent)} saves; ours {ours:.3f} s, {ours / whole:.2%}")


if __name__ == "__main__":
    main()
