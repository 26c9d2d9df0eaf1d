"""Reward files as people write them."""

import sys

import pytest

from rarft.errors import InputError
from rarft.rewards.registry import resolve_rewards

FILES = {
    "dataclass": """
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass
class Weights:
    scale: float = 0.5
    names: list[str] = field(default_factory=list)

def reward(completions, **columns):
    return [Weights().scale] * len(completions)
""",
    "neighbor": """
from my_neighbor_helpers import scale

def reward(completions, **columns):
    import my_late_helpers
    return [scale() + my_late_helpers.NOTHING] * len(completions)
""",
    "asynchronous": """
import asyncio

async def reward(completions, **columns):
    await asyncio.sleep(0)
    return [0.5] * len(completions)
""",
    "numpy": """
import numpy

def reward(completions, **columns):
    return numpy.full(len(completions), 0.5, numpy.float32)
""",
    "tensor": """
import torch

def reward(completions, **columns):
    return torch.full((len(completions),), 0.5, dtype=torch.bfloat16, requires_grad=True)
""",
    "tensors": """
import torch

def reward(completions, **columns):
    return [torch.tensor(0.5) for _ in completions]
""",
    "object": """
class Reward:
    def __call__(self, completions, **columns):
        return [0.5 for _ in completions]

reward = Reward()
""",
    "partial": """
import functools

def scaled(completions, scale, **columns):
    return [scale] * len(completions)

reward = functools.partial(scaled, scale=0.5)
""",
    "generator": """
def reward(completions, **columns):
    for _ in completions:
        yield 0.5
""",
}


@pytest.fixture(autouse=True)
def paths(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_neighbor_helpers.py").write_text("def scale():\n    return 0.5\n")
    (tmp_path / "my_late_helpers.py").write_text("NOTHING = 0.0\n")
    yield
    for name in ("my_neighbor_helpers", "my_late_helpers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", FILES)
def test_reward_file(tmp_path, name):
    file = tmp_path / "my rewards.py"
    file.write_text(FILES[name])
    (function,) = resolve_rewards([f"{file}:reward"], None)
    assert function(completions=["a", "b"], task_type=["answerable"] * 2) == [0.5, 0.5]
    assert function.__name__  # trl logs the reward under it
    (same,) = resolve_rewards([f"file://{str(file).replace(' ', '%20')}:reward"], None)
    assert same(completions=["a"]) == [0.5]


def test_reward_file_named_like_a_module(tmp_path):
    """The file does not replace an installed module of its name."""
    file = tmp_path / "json.py"
    file.write_text("def reward(completions, **columns):\n    return [0.5] * len(completions)\n")
    resolve_rewards([f"{file}:reward"], None)
    import json

    assert json.loads("1") == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import no_such_module_here", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def reward(:", "SyntaxError"),
        ("other = 1", "no function reward"),
    ],
)
def test_reward_file_invalid(tmp_path, text, problem):
    file = tmp_path / "rewards.py"
    file.write_text(text)
    with pytest.raises(InputError, match=problem):
        resolve_rewards([f"{file}:reward"], None)


@pytest.mark.parametrize(
    "body",
    [
        "return 0.5",
        "return None",
        "return torch.tensor(0.5)",
        "return [[0.5, 0.5]] * len(completions)",
        "return ['a']",
    ],
)
def test_reward_values_invalid(tmp_path, body):
    file = tmp_path / "rewards.py"
    file.write_text(f"import torch\n\ndef reward(completions, **columns):\n    {body}\n")
    (function,) = resolve_rewards([f"{file}:reward"], None)
    with pytest.raises(InputError, match=rf"^reward {file}:reward: failed with "):
        function(completions=["a"])
