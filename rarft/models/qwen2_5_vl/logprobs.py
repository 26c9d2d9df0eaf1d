"""Log-probabilities of a group's completions, from one packed row or from one row per completion.

Only the positions of completions reach the language-model head. If their logits fit a budget, they are kept for the
backward pass. Otherwise the fused head that TRL adds to the model (`shift_labels`, `fused_lm_head`) computes them
twice and keeps none. The row per completion is the reference implementation of the packed row.

Shapes: G completions, C tokens per completion, B rows of L scored positions, V tokens in the vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX, per_completion_batch
from rarft.models.qwen2_5_vl.prompt_encoder import PromptInputs
from rarft.models.qwen2_5_vl.rollout import unwrap_model
from rarft.models.qwen2_5_vl.shared_prefix import pack

# Bytes of float32 logits that may be kept. A backward pass needs about three times as much.
MAX_LOGITS_BYTES = 3 * 2**28


def _select_scored_positions(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
    first = kwargs.get("scored_from")
    if first is not None:
        output.last_hidden_state = output.last_hidden_state[:, first:]


def limit_lm_head_to_completions(model: Any) -> None:
    """Make forward passes with `scored_from=N` pass only the positions from N on to the language-model head."""
    unwrap_model(model).model.register_forward_hook(_select_scored_positions, with_kwargs=True)


def fits_logits_budget(tokens: int, vocabulary: int) -> bool:
    """Check whether the logits of so many tokens may be kept.

    The ranks must decide alike, so `tokens` must not depend on the lengths of a rank's own completions: under ZeRO-3
    the two ways gather the head's weights differently.
    """
    return tokens * vocabulary * torch.float32.itemsize <= MAX_LOGITS_BYTES


def _score(
    model: Any,
    model_inputs: dict[str, Any],
    labels_BL: Tensor,
    temperature: float,
    with_entropy: bool,
    keep_logits: bool,
    entropy_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities of the labels and entropies, (B, L), zero where a label is `IGNORE_INDEX`."""
    if not keep_logits:
        output = model(**model_inputs, shift_labels=labels_BL, fused_lm_head=True)
        return output.log_probs, output.entropy if with_entropy else None
    logits_BLV = model(**model_inputs, use_cache=False).logits.float() / temperature
    losses = F.cross_entropy(
        logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    if not with_entropy:
        return -losses.view_as(labels_BL), None
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        log_softmax_BLV = logits_BLV.log_softmax(-1)
        entropies_BL = -(log_softmax_BLV.exp() * log_softmax_BLV).sum(-1)
    return -losses.view_as(labels_BL), entropies_BL.masked_fill(labels_BL == IGNORE_INDEX, 0.0)


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
    """Return log-probabilities and, on request, entropies from one forward pass for the group.

    Args:
        model: Model with a fused head of the same temperature, which returns entropies if they are requested.
        prompt: The group's prompt.
        completion_ids_GC: Completions, padded on the right.
        completion_mask_GC: 1 for their tokens, 0 for padding.
        temperature: Divisor of the logits.
        with_entropy: Return entropies.
        keep_logits: Keep the logits for the backward pass instead of using the fused head.
        entropy_grad: Compute gradients of the entropies. Those of the fused head always have them.

    Returns:
        Log-probabilities and entropies, both (G, C) and zero at padding.
    """
    model_inputs, labels_BL = pack(prompt, completion_ids_GC, completion_mask_GC)
    logps, entropies = _score(model, model_inputs, labels_BL, temperature, with_entropy, keep_logits, entropy_grad)
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
    """Return the same from G ordinary rows, each with its own copy of the prompt and the video."""
    rows = [(prompt, completion) for completion in completion_ids_GC]
    model_inputs, _ = per_completion_batch(rows, pad_token_id)
    # The output at a completion's last token predicts nothing.
    labels_BL = F.pad(completion_ids_GC.masked_fill(completion_mask_GC == 0, IGNORE_INDEX), (0, 1), value=IGNORE_INDEX)
    model_inputs["scored_from"] = prompt.input_ids_L.numel() - 1
    logps, entropies = _score(model, model_inputs, labels_BL, temperature, with_entropy, keep_logits, entropy_grad)
    return logps[:, :-1], None if entropies is None else entropies[:, :-1]
