"""Log-probabilities of a group's completions, from one packed row or from one row per completion.

Only the positions of completions reach the language-model head, which TRL replaces by a fused one (`shift_labels`,
`fused_lm_head`): it computes the logits in chunks, twice, and keeps none. It divides them by the temperature. The row
per completion is the reference implementation of the packed row.

Shapes: G completions, C tokens per completion, B rows of L scored positions.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX, per_completion_batch
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import unwrap_model
from rarft.models.qwen2_5_vl.shared_prefix import pack


def _select_scored_positions(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
    first = kwargs.get("scored_from")
    if first is not None:
        output.last_hidden_state = output.last_hidden_state[:, first:]


def limit_lm_head_to_completions(model: Any) -> None:
    """Make forward passes with `scored_from=N` pass only the positions from N on to the language-model head."""
    unwrap_model(model).model.register_forward_hook(_select_scored_positions, with_kwargs=True)


def _score(
    model: Any, model_inputs: dict[str, Any], labels_BL: Tensor, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities of the labels and entropies, (B, L), zero where a label is `IGNORE_INDEX`."""
    output = model(**model_inputs, shift_labels=labels_BL, fused_lm_head=True)
    return output.log_probs, output.entropy if with_entropy else None


def shared_prefix_logps(
    model: Any,
    prompt: PromptInputs,
    completion_ids_GC: Tensor,
    completion_mask_GC: Tensor,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities and, on request, entropies from one forward pass for the group.

    Args:
        model: Model with a fused head, which returns entropies if they are requested.
        prompt: The group's prompt.
        completion_ids_GC: Completions, padded on the right.
        completion_mask_GC: 1 for their tokens, 0 for padding.
        with_entropy: Return entropies.

    Returns:
        Log-probabilities and entropies, both (G, C) and zero at padding.
    """
    model_inputs, labels_BL = pack(prompt, completion_ids_GC, completion_mask_GC)
    logps, entropies = _score(model, model_inputs, labels_BL, with_entropy)
    shape = completion_ids_GC.shape
    return logps.view(shape), None if entropies is None else entropies.view(shape)


def per_completion_logps(
    model: Any,
    prompt: PromptInputs,
    completion_ids_GC: Tensor,
    completion_mask_GC: Tensor,
    pad_token_id: int,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the same from G ordinary rows, each with its own copy of the prompt and the video."""
    rows = [(prompt, completion) for completion in completion_ids_GC]
    model_inputs, _ = per_completion_batch(rows, pad_token_id)
    # The output at a completion's last token predicts nothing.
    labels_BL = F.pad(completion_ids_GC.masked_fill(completion_mask_GC == 0, IGNORE_INDEX), (0, 1), value=IGNORE_INDEX)
    model_inputs["scored_from"] = prompt.input_ids_L.numel() - 1
    logps, entropies = _score(model, model_inputs, labels_BL, with_entropy)
    return logps[:, :-1], None if entropies is None else entropies[:, :-1]
