"""The learning rate's course in the cold start."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_WARM_UP = 50  # steps
_LAST = 0.02


def warmup_stable_decay(optimizer: Optimizer, steps: int) -> LambdaLR:
    """50 steps of warm-up, a plateau to the half of `steps`, then down in a line to a fiftieth."""

    def share(step: int) -> float:
        return min(1.0, (step + 1) / _WARM_UP) * min(1.0, max(_LAST, 2 * (1 - step / steps)))

    return LambdaLR(optimizer, share)
