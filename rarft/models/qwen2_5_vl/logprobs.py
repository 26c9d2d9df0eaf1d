"""Log-probabilities of a group's completions: packed behind one prompt, or row by row.

Only a completion's positions reach the language-model head. Their logits are kept for the backward pass where they
are few; else the fused head that TRL adds to the model (`shift_labels`, `fused_lm_head`) makes them twice and
holds none. The second layout is the oracle of the first, the fused head that of the kept logits.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rarft.models.qwen2_5_vl.padding import IGNORE, per_completion_batch
from rarft.models.qwen2_5_vl.prompt_encoder import PromptInputs
from rarft.models.qwen2_5_vl.rollout import base_model
from rarft.models.qwen2_5_vl.shared_prefix import pack

# Bytes of float32 logits up to which they are kept; a backward pass holds about three times as much.
KEPT_LOGITS = 3 * 2**28


def _keep_scored(_module: Any, _arguments: Any, kwargs: dict[str, Any], output: Any) -> None:
    first = kwargs.get("scored_from")
    if first is not None:
        output.last_hidden_state = output.last_hidden_state[:, first:]


def limit_lm_head_to_completions(model: Any) -> None:
    """Let forwards with `scored_from=N` hand only the positions from N on to the language-model head."""
    base_model(model).model.register_forward_hook(_keep_scored, with_kwargs=True)


def fits_logits_budget(tokens: int, vocabulary: int) -> bool:
    """Whether the logits of so many tokens may be kept.

    Ranks must decide alike, from what they share and not from the lengths of their own completions: under ZeRO-3
    the two ways gather the head's weights differently.
    """
    return tokens * vocabulary * torch.float32.itemsize <= KEPT_LOGITS


def _score(
    model: Any,
    arguments: dict[str, Any],
    labels_BL: Tensor,
    temperature: float,
    with_entropy: bool,
    keep_logits: bool,
    entropy_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the labels and entropies, (B, L), zero where a label is `IGNORE`."""
    if not keep_logits:
        output = model(**arguments, shift_labels=labels_BL, fused_lm_head=True)
        return output.log_probs, output.entropy if with_entropy else None
    logits_BLV = model(**arguments, use_cache=False).logits.float() / temperature
    losses = F.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE, reduction="none")
    if not with_entropy:
        return -losses.view_as(labels_BL), None
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        log_softmax_BLV = logits_BLV.log_softmax(-1)
        entropies_BL = -(log_softmax_BLV.exp() * log_softmax_BLV).sum(-1)
    return -losses.view_as(labels_BL), entropies_BL.masked_fill(labels_BL == IGNORE, 0.0)


def shared_prefix_logps(
    model: Any,
    prompt: PromptInputs,
    completion_ids_GC: Tensor,
    completion_mask_GC: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = False,
    keep_logits: bool = True,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and, where they are wanted, entropies (G, C), zero at padding; one forward for the group.

    The model's fused head must have been made with the same temperature, and with entropies if they are wanted.
    Its entropies always have a gradient; those of kept logits have one if `entropy_grad`.
    """
    arguments, labels_BL = pack(prompt, completion_ids_GC, completion_mask_GC)
    logps, entropies = _score(model, arguments, labels_BL, temperature, with_entropy, keep_logits, entropy_grad)
    shape = completion_ids_GC.shape
    return logps.view(shape), None if entropies is None else entropies.view(shape)


def per_completion_logps(
    model: Any,
    prompt: PromptInputs,
    completion_ids_GC: Tensor,
    completion_mask_GC: Tensor,
    pad_token_id: int,
    temperature: float = 1.0,
    with_entropy: bool = False,
    keep_logits: bool = True,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The same from G ordinary rows, each with its own copy of the prompt and the video."""
    rows = [(prompt, completion) for completion in completion_ids_GC]
    arguments, _ = per_completion_batch(rows, pad_token_id)
    # The output at a completion's last token predicts nothing.
    labels_BL = F.pad(completion_ids_GC.masked_fill(completion_mask_GC == 0, IGNORE), (0, 1), value=IGNORE)
    arguments["scored_from"] = prompt.input_ids_L.numel() - 1
    logps, entropies = _score(model, arguments, labels_BL, temperature, with_entropy, keep_logits, entropy_grad)
    return logps[:, :-1], None if entropies is None else entropies[:, :-1]
