"""`rarft` with a NaN in training at one step: `python diverging.py KIND STEP RANK ARGUMENT...`."""

import math
import sys

import torch

from rarft.cli.main import main
from rarft.training.trainer import VideoGRPOTrainer

KINDS = ("loss", "gradient", "weights")


def _spoil(trainer):
    """Set one of this process's weights to NaN."""
    parameter = list(trainer.model.parameters())[-1]
    getattr(parameter, "ds_tensor", parameter.data).view(-1)[0] = math.nan


def inject(kind, at, rank=0, set_attribute=setattr):
    """Make the loss, the gradient or the weights NaN at step `at`, on one rank.

    Only the first of accumulated micro-batches is affected. A NaN loss has a finite gradient, and a NaN gradient a
    finite loss. Weights become NaN after the loss and the gradient of the step were computed.
    """
    compute_loss, get_grad_norm = VideoGRPOTrainer._compute_loss, VideoGRPOTrainer._get_grad_norm
    broken = []

    def is_due(trainer):
        due = trainer.state.global_step + 1 == at and trainer.accelerator.process_index == rank
        return due and trainer.model.training and not broken

    def broken_loss(trainer, model, inputs):
        loss = compute_loss(trainer, model, inputs)
        if kind != "weights" and is_due(trainer):
            broken.append(at)
            if kind == "loss":
                return loss + math.nan
            loss = loss * torch.ones_like(loss, requires_grad=True)
            loss.register_hook(lambda gradient: gradient * math.nan)
        return loss

    def broken_weights(trainer, model, grad_norm=None):
        norm = get_grad_norm(trainer, model, grad_norm=grad_norm)
        if kind == "weights" and is_due(trainer):
            broken.append(at)
            _spoil(trainer)
        return norm

    set_attribute(VideoGRPOTrainer, "_compute_loss", broken_loss)
    set_attribute(VideoGRPOTrainer, "_get_grad_norm", broken_weights)


if __name__ == "__main__":
    inject(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    main(sys.argv[4:])
