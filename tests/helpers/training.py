"""Training runs of the tiny model, and the content of their checkpoints."""

import json

import torch
from safetensors.torch import load_file

from rarft import steps

FLAGS = ["--preset", "tiny", "--per_device_train_batch_size", "2", "--num_generations", "4", "--warmup_steps", "0"]


def train(data, folder, *flags):
    steps.train([*FLAGS, "--train_data_path", str(data), "--out", str(folder), *flags])
    lines = (folder / "checkpoints" / "rarft" / "training.jsonl").read_text().splitlines()
    return folder / "checkpoints" / "rarft" / "checkpoint-final", [json.loads(line) for line in lines]


def weights(path):
    return load_file(path / "model.safetensors")


def optimizer(path):
    return torch.load(path / "optimizer.pt", weights_only=True)["state"]


def assert_same_state(left, right):
    assert weights(left).keys() == weights(right).keys()
    assert all(torch.equal(tensor, weights(right)[name]) for name, tensor in weights(left).items())
    before, after = optimizer(left), optimizer(right)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key][moment], after[key][moment]) for key in before for moment in before[key])
