"""Log-probabilities of a group's completions: packed behind one prompt, or row by row.

Both go through the fused language-model head that TRL adds to the model (`shift_labels`, `fused_lm_head`), so
that logits over the vocabulary are never held for the prompt. The second is the oracle of the first.
"""

from typing import Any

from torch import Tensor

from rarft.qwen.batches import IGNORE, per_completion_batch
from rarft.qwen.inputs import PromptInputs
from rarft.qwen.shared_prefix import pack


def shared_prefix_logps(
    model: Any, prompt: PromptInputs, completion_ids_GC: Tensor, completion_mask_GC: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies (G, C), zero at padding; one forward over the packed row.

    Entropies are None where the model's fused head does not compute them (a reference model).
    """
    G, C = completion_ids_GC.shape
    arguments, shift_labels = pack(prompt, completion_ids_GC, completion_mask_GC)
    output = model(**arguments, shift_labels=shift_labels, fused_lm_head=True)
    entropies = None if output.entropy is None else output.entropy[:, -G * C :].view(G, C)
    return output.log_probs[:, -G * C :].view(G, C), entropies


def per_completion_logps(
    model: Any, prompt: PromptInputs, completion_ids_GC: Tensor, completion_mask_GC: Tensor, pad_token_id: int
) -> tuple[Tensor, Tensor | None]:
    """The same from G ordinary rows, each with its own copy of the prompt and the video."""
    C = completion_ids_GC.shape[1]
    rows = [(prompt, completion) for completion in completion_ids_GC]
    arguments, _ = per_completion_batch(rows, pad_token_id)
    P = prompt.input_ids_L.numel()
    shift_labels = arguments["input_ids"].new_full(arguments["input_ids"].shape, IGNORE)
    shift_labels[:, P - 1 : P - 1 + C] = completion_ids_GC.masked_fill(completion_mask_GC == 0, IGNORE)
    output = model(**arguments, shift_labels=shift_labels, fused_lm_head=True)
    entropies = None if output.entropy is None else output.entropy[:, P - 1 : P - 1 + C]
    return output.log_probs[:, P - 1 : P - 1 + C], entropies
