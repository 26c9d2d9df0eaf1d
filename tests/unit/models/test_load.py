"""Checkpoints whose weights are truncated, incomplete or of another model."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rarft.checkpoint.source import checkpoint_path
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.load import load_model

NAME = "model.language_model.layers.0.input_layernorm.weight"


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_path("tiny"), folder)
    return folder


@pytest.mark.parametrize("size", [0, 4, 5000, 1_000_000])
def test_truncated_weights(checkpoint, size):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match=rf"^{checkpoint}: cannot load the model \(.*; use another checkpoint$"):
        load_model(str(checkpoint), torch.float32)


@pytest.mark.parametrize(
    ("value", "problem"), [(None, "lacks 1 of its weights"), (torch.zeros(3), "has another shape of 1 of its weights")]
)
def test_wrong_weights(checkpoint, value, problem):
    """They would be random."""
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    name = next(each for each in weights if each.endswith("layers.0.input_layernorm.weight"))
    del weights[name]
    save_file(weights if value is None else {**weights, name: value}, file, {"format": "pt"})
    with pytest.raises(InputError, match=rf"^{checkpoint}: the checkpoint {problem}, such as {NAME}; use another"):
        load_model(str(checkpoint), torch.float32)
