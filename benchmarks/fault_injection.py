"""Kill and resume a two-rank ZeRO-3 run repeatedly, and compare it with an uninterrupted run.

`python benchmarks/fault_injection.py --kills 20` sends SIGKILL, half of the times during a save; `--signal TERM` sends
SIGTERM. Trains the tiny model on a CPU. Weights and both moments of the last checkpoint must be bitwise identical.
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

SAVE_STEPS = 2
_STARTUP_FRACTION = 0.5  # of a run's time


def start(folder: Path, data: Path, steps: int, ranks: int) -> subprocess.Popen[bytes]:
    """Start a run in a folder, on a free port."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d",
        "--rdzv_endpoint", "localhost:0", "-m", "rarft.cli",
        "train", "--preset", "tiny", "--deepspeed", "zero3", "--bf16", "true",
        "--train_data_path", str(data), "--max_steps", str(steps), "--per_device_train_batch_size", str(2 // ranks),
        "--num_generations", "4", "--warmup_steps", "0", "--save_strategy", "steps", "--save_steps", str(SAVE_STEPS),
        "--resume_from_checkpoint", "auto", "--log_completions_steps", "0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def wait_for_end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a run; exit with its log if it fails."""
    if process.wait():
        raise SystemExit((folder / "log").read_text()[-3000:])


def is_saving(run: Path) -> bool:
    """Check whether a checkpoint is incomplete."""
    return any(not (checkpoint / CHECKPOINT_JSON).exists() for checkpoint in list_checkpoints(run))


def wait_for_moment(
    process: subprocess.Popen[bytes], run: Path, rng: random.Random, run_seconds: float, steps: int
) -> str | None:
    """Wait for a random moment to kill the process in.

    Args:
        process: Process to kill.
        run: Folder of the run.
        rng: Random numbers.
        run_seconds: Time of an uninterrupted run.
        steps: Steps of an uninterrupted run.

    Returns:
        A description of the moment; None if the run ended before it.
    """
    during_save = rng.random() < 0.5
    existing = set(list_checkpoints(run))
    newest = list_checkpoints(run)[:1]
    remaining = 1 - parse_step(newest[0].name) / steps if newest else 1.0
    delay = rng.uniform(0, run_seconds * (_STARTUP_FRACTION + (1 - _STARTUP_FRACTION) * remaining))
    deadline = time.monotonic() + delay
    while process.poll() is None:
        if during_save and any(path not in existing for path in list_checkpoints(run)) and is_saving(run):
            time.sleep(rng.uniform(0, 0.3))
            return "during a save"
        if not during_save and time.monotonic() > deadline:
            return f"after {delay:.1f} s"
        time.sleep(0.005)
    return None


def checkpoint_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights, and the optimizer states of all ranks, by name."""
    tensors = {f"weights/{name}": tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}

    def collect(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{name}/{key}", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                collect(f"{name}/{index}", inner)

    for file in sorted(checkpoint.glob("global_step*/*_optim_states.pt")):
        content = torch.load(file, map_location="cpu", weights_only=False)
        collect(file.name, content["optimizer_state_dict"])
    return tensors


def logged_losses(run: Path) -> list[float]:
    """Return the logged loss of each step."""
    entries = map(json.loads, (run / "training.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def make_data(folder: Path) -> Path:
    """Write a small validated dataset."""
    for command in ("make-dataset --out s --train 8 --eval 0", "validate s/train.json --out v"):
        program = [sys.executable, "-m", "rarft.cli", *command.split()]
        subprocess.run(program, cwd=folder, check=True, capture_output=True)
    return folder / "v"


def main() -> None:
    """Run both and compare them; exit with 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--ranks", type=int, choices=(1, 2), default=2)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="riq.jsonl (default: a synthetic dataset)")
    options = parser.parse_args()
    number = signal.Signals[f"SIG{options.signal}"]
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="rarft-kills-"))
    data = (options.data or make_data(folder)).absolute()
    reference, killed = folder / "reference", folder / "killed"
    for path in (reference, killed):
        path.mkdir()
    steps, ranks = options.steps, options.ranks
    began = time.monotonic()
    wait_for_end(start(reference, data, steps, ranks), reference)
    run_seconds = time.monotonic() - began
    print(f"uninterrupted: {steps} steps in {run_seconds:.0f} s", flush=True)

    run = killed / "checkpoints" / "rarft"
    finished = kills = 0
    while kills < options.kills:
        process = start(killed, data, steps, ranks)
        moment = wait_for_moment(process, run, rng, run_seconds, steps)
        if moment is None:
            wait_for_end(process, killed)
            # The run ended before the moment: delete its last checkpoints and run again.
            finished += 1
            kept = rng.randint(0, steps // SAVE_STEPS - 1)
            for checkpoint in list_checkpoints(run)[: steps // SAVE_STEPS - kept]:
                shutil.rmtree(checkpoint)
            (run / "DONE").unlink(missing_ok=True)
            continue
        process.send_signal(number)  # the ranks exit with torchrun
        code = process.wait()
        kills += 1
        newest = list_checkpoints(run)[:1]
        state = "no checkpoint"
        if newest:
            state = f"{newest[0].name}, {'complete' if (newest[0] / CHECKPOINT_JSON).exists() else 'incomplete'}"
        print(f"kill {kills:2d}: {options.signal} {moment}; {state}", flush=True)
        if number == signal.SIGTERM and newest:
            verify_checkpoint(newest[0])
            print(f"         exit code of torchrun {code} (of a rank: {EXIT_PREEMPTED})", flush=True)
    wait_for_end(start(killed, data, steps, ranks), killed)

    name, reference_run = f"checkpoint-{steps}", reference / "checkpoints" / "rarft"
    expected, actual = checkpoint_tensors(reference_run / name), checkpoint_tensors(run / name)
    if expected.keys() != actual.keys():
        raise SystemExit("the checkpoints have different tensors")
    different = [key for key in expected if not torch.equal(expected[key], actual[key])]
    moments = sum("exp_avg" in key for key in expected)
    print(
        f"{kills} kills, {finished} finished runs, {len(list(run.glob('corrupt-*')))} corrupt checkpoints; "
        f"{len(expected)} tensors compared ({moments} of moments), {len(different)} differ"
    )
    losses = [logged_losses(path) for path in (reference_run, run)]
    print(f"losses of {len(losses[0])} steps {'are identical' if losses[0] == losses[1] else 'differ'}")
    shutil.rmtree(folder)
    if different or losses[0] != losses[1]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
