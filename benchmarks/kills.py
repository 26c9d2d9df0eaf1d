"""Kill a two-rank ZeRO-3 run again and again, let it go on, and compare it with one that nobody killed.

`python benchmarks/kills.py --kills 20` kills with SIGKILL, half of the times inside a save; `--signal TERM` asks it
to stop instead. The tiny model, on a CPU. Weights and both moments of the last checkpoint must be equal to the bit.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from rarft.checkpoint.local import CHECKPOINT_JSON, list_checkpoints, parse_step, verify_checkpoint
from rarft.errors import EXIT_PREEMPTED

SAVE_EVERY = 2  # steps
_STARTING = 0.5  # share of a run's time in which it starts


def start(folder: Path, data: Path, steps: int, ranks: int) -> subprocess.Popen[bytes]:
    """So many ranks, on a port of their own."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d",
        "--rdzv_endpoint", "localhost:0", "-m", "rarft.cli",
        "train", "--preset", "tiny", "--deepspeed", "zero3", "--bf16", "true",
        "--train_data_path", str(data), "--max_steps", str(steps), "--per_device_train_batch_size", str(2 // ranks),
        "--num_generations", "4", "--warmup_steps", "0", "--save_strategy", "steps", "--save_steps", str(SAVE_EVERY),
        "--resume_from_checkpoint", "auto", "--log_completions_steps", "0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def being_saved(run: Path) -> bool:
    """Whether some checkpoint was begun and is not complete."""
    return any(not (checkpoint / CHECKPOINT_JSON).exists() for checkpoint in list_checkpoints(run))


def wait_for_moment(
    process: subprocess.Popen[bytes], run: Path, rng: random.Random, longest: float, steps: int
) -> str | None:
    """Wait for the moment to kill in; None where the run ended before it.

    Args:
        process: that will be killed.
        run: its folder.
        rng: draws the moment.
        longest: seconds that a whole run takes.
        steps: of a whole run.
    """
    in_save = rng.random() < 0.5
    newest = list_checkpoints(run)[:1]
    left = 1 - parse_step(newest[0].name) / steps if newest else 1.0
    away = rng.uniform(0, longest * (_STARTING + (1 - _STARTING) * left))
    ends = time.monotonic() + away
    leftovers = set(list_checkpoints(run))
    while process.poll() is None:
        if in_save and any(path not in leftovers for path in list_checkpoints(run)) and being_saved(run):
            time.sleep(rng.uniform(0, 0.3))
            return "in a save"
        if not in_save and time.monotonic() > ends:
            return f"after {away:.1f} s"
        time.sleep(0.005)
    return None


def state_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights, and both moments of every rank."""
    tensors = {f"weights/{name}": tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}

    def collect(prefix: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[prefix] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{prefix}/{key}", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                collect(f"{prefix}/{index}", inner)

    for file in sorted(checkpoint.glob("global_step*/*_optim_states.pt")):
        content = torch.load(file, map_location="cpu", weights_only=False)
        collect(file.name, content["optimizer_state_dict"])
    return tensors


def losses_of(run: Path) -> list[float]:
    """The loss of every step, as it was logged."""
    entries = map(json.loads, (run / "training.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def main() -> None:
    """Run, kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2, choices=[1, 2])
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a riq.jsonl; by default a synthetic set is made")
    options = parser.parse_args()
    number = signal.Signals[f"SIG{options.signal}"]
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="rarft-kills-"))
    data = options.data
    if data is None:
        for command in ("sample --out s --train 8 --eval 0", "validate s/train.json --out v"):
            program = [sys.executable, "-m", "rarft.cli", *command.split()]
            subprocess.run(program, cwd=folder, check=True, capture_output=True)
        data = folder / "v"
    whole, killed = folder / "whole", folder / "killed"
    for place in (whole, killed):
        place.mkdir()
    began = time.monotonic()
    steps, ranks = options.steps, options.ranks
    if start(whole, data.absolute(), steps, ranks).wait():
        raise SystemExit((whole / "log").read_text()[-3000:])
    longest = time.monotonic() - began
    print(f"nobody killed: {steps} steps in {longest:.0f} s", flush=True)

    run = killed / "checkpoints" / "rarft"
    done = kills = 0
    while kills < options.kills:
        process = start(killed, data.absolute(), steps, ranks)
        moment = wait_for_moment(process, run, rng, longest, steps)
        if moment is None:
            if process.returncode:
                raise SystemExit((killed / "log").read_text()[-3000:])
            # It ended before its moment came: begin it anew, its last checkpoints gone.
            done += 1
            keep = rng.randint(0, steps // SAVE_EVERY - 1)
            for checkpoint in list_checkpoints(run)[: steps // SAVE_EVERY - keep]:
                shutil.rmtree(checkpoint)
            (run / "DONE").unlink(missing_ok=True)
            continue
        process.send_signal(number)  # killed, torchrun takes its ranks along: `exit_with_parent`
        code = process.wait()
        kills += 1
        newest = list_checkpoints(run)[:1]
        held = newest[0].name if newest else "no checkpoint"
        state = "" if not newest else ", complete" if (newest[0] / CHECKPOINT_JSON).exists() else ", cut off"
        print(f"kill {kills:2d}: {options.signal} {moment}; left {held}{state}", flush=True)
        if number == signal.SIGTERM and newest:
            verify_checkpoint(newest[0])
            print(f"         exit code of the launcher {code} (a rank's own: {EXIT_PREEMPTED})", flush=True)
    if start(killed, data.absolute(), steps, ranks).wait():
        raise SystemExit((killed / "log").read_text()[-3000:])

    name = f"checkpoint-{steps}"
    expected, got = state_of(whole / "checkpoints" / "rarft" / name), state_of(run / name)
    if expected.keys() != got.keys():
        raise SystemExit("the checkpoints do not hold the same tensors")
    different = [key for key in expected if not torch.equal(expected[key], got[key])]
    moments = sum("exp_avg" in key for key in expected)
    print(
        f"{kills} kills, {done} runs to the end between them; set aside: {len(list(run.glob('corrupt-*')))}; "
        f"{len(expected)} tensors compared ({moments} of moments), {len(different)} differ"
    )
    losses = [losses_of(place) for place in (whole / "checkpoints" / "rarft", run)]
    print(f"losses of the {len(losses[0])} steps {'are the same' if losses[0] == losses[1] else 'differ'}")
    shutil.rmtree(folder)
    if different or losses[0] != losses[1]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
