"""Learning rate schedule of pretraining."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_WARMUP_STEPS = 50
_FINAL_FACTOR = 0.02


def warmup_stable_decay(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Return a schedule with 50 steps of warmup, a plateau until half of `steps`, and a linear decay to 2 %."""

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / _WARMUP_STEPS) * min(1.0, max(_FINAL_FACTOR, 2 * (1 - step / steps)))

    return LambdaLR(optimizer, factor)
