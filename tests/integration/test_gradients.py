"""The loss and its gradient, compared with TRL's over all prompts at once and with one row per completion."""

from collections import defaultdict

import pytest
import torch
from trl import GRPOTrainer

from helpers.fixed_rollouts import fixed_rollouts
from helpers.training import train
from rarft.training import trainer as trainer_module
from rarft.training.config import LOSS_TYPES
from rarft.training.trainer import VideoGRPOTrainer
from rarft.training.trainer_logging import TOKEN_MEANS

BREVITY = """
def brevity(completions, **columns):
    return [1 / (1 + len(text)) for text in map(str, completions)]
"""


# With its level of the importance ratio; "sequence" is GSPO.
LOSSES = [*((loss_type, "token") for loss_type in LOSS_TYPES), ("grpo", "sequence")]


def one_backward(trainer, model, inputs):
    """Return TRL's loss over all prompts."""
    trainer._groups = inputs["video_prompts"]
    rows = {
        name: value.flatten(0, 1) if isinstance(value, torch.Tensor) and value.ndim > 1 else value
        for name, value in inputs.items()
        if name != "video_prompts"
    }
    return GRPOTrainer._compute_loss(trainer, model, rows)


def measure(trainer, compute_loss, model, inputs):
    """Return loss, gradient and metrics of one micro-batch, and restore the trainer and its gradients."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    saved = [parameter.grad for parameter in parameters]
    metrics, trainer._metrics["train"] = trainer._metrics["train"], defaultdict(list)
    model.zero_grad()
    loss = compute_loss(trainer, model, inputs)
    loss.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    logged, trainer._metrics["train"] = trainer._metrics["train"], metrics
    for parameter, grad in zip(parameters, saved, strict=True):
        parameter.grad = grad
    return loss.item(), gradient, {name: logged[name] for name in TOKEN_MEANS if name in logged}


def test_one_backward_per_prompt_equals_one_for_all(validated, tmp_path, monkeypatch):
    """Compare loss, gradient and token means of every loss, with a policy that differs from the sampling one.

    The gradients of a packed row and of one row per completion are equal, too.
    """
    ratios, norms = set(), defaultdict(set)
    original = VideoGRPOTrainer._compute_loss

    def compared(trainer, model, inputs):
        for loss_type, level in LOSSES if trainer.state.global_step else ():
            trainer.loss_type, trainer.importance_sampling_level = loss_type, level
            loss, gradient, metrics = measure(trainer, original, model, inputs)
            for sharing, reference in ("on", one_backward), ("off", original):
                trainer.args.prompt_sharing = sharing
                expected_loss, expected, expected_metrics = measure(trainer, reference, model, inputs)
                assert loss == pytest.approx(expected_loss, rel=1e-4, abs=1e-6)
                assert (gradient - expected).norm() < 1e-4 * expected.norm()
                for name, values in expected_metrics.items():
                    assert metrics[name] == pytest.approx(values, rel=1e-4, abs=1e-6)
            trainer.args.prompt_sharing = "on"
            norms[loss_type, level].add(round(expected.norm().item(), 4))
            ratios.update(expected_metrics.get("clip_ratio/region_mean", []))
        trainer.loss_type, trainer.importance_sampling_level = "grpo", "token"
        return original(trainer, model, inputs)

    monkeypatch.setattr(VideoGRPOTrainer, "_compute_loss", compared)
    monkeypatch.setattr(trainer_module, "generate", fixed_rollouts)
    own = tmp_path / "own.py"
    own.write_text(BREVITY)
    train(
        validated, tmp_path, "--max_steps", "2", "--gradient_accumulation_steps", "2", "--num_iterations", "2",
        "--learning_rate", "1e-3", "--reward_funcs", f"{own}:brevity",
    )  # fmt: skip
    assert max(ratios) > 0  # some ratios are clipped
    assert all(len(seen) == 2 for seen in norms.values())  # two micro-batches each
    for other in ("bnpo", "token"), ("grpo", "sequence"):
        assert norms[other].isdisjoint(norms["grpo", "token"])


def test_entropy_bonus_reaches_the_gradient(validated, tmp_path):
    """With equal rewards and no KL penalty, the gradient is that of the bonus."""
    own = tmp_path / "own.py"
    own.write_text("def equal(completions, **columns):\n    return [1.0] * len(completions)\n")
    flags = ("--max_steps", "1", "--beta", "0", "--reward_funcs", f"{own}:equal")
    _, (without, *_) = train(validated, tmp_path / "without", *flags)
    _, (bonus, *_) = train(validated, tmp_path / "bonus", *flags, "--entropy_coef", "0.1")
    assert without["grad_norm"] == 0
    assert bonus["grad_norm"] > 1e-3
