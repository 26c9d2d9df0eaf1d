"""The rewards of RA-RFT, as TRL reward functions."""

from rarft.rewards.contrastive import explain_correction_contrastive_reward
from rarft.rewards.explain_correction import explain_correction_reward
from rarft.rewards.format import format_reward
from rarft.rewards.refuse_giou import refuse_giou_reward
from rarft.rewards.refuse_iou import refuse_iou_reward

__all__ = [
    "explain_correction_contrastive_reward",
    "explain_correction_reward",
    "format_reward",
    "refuse_giou_reward",
    "refuse_iou_reward",
]
