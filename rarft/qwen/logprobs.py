"""Log-probabilities of a group's completions: packed behind one prompt, or row by row.

Both go through the fused language-model head that TRL adds to the model (`shift_labels`, `fused_lm_head`), and
only a completion's positions reach that head. The second is the oracle of the first.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from rarft.qwen.batches import IGNORE, per_completion_batch
from rarft.qwen.inputs import PromptInputs
from rarft.qwen.rollout import base_model
from rarft.qwen.shared_prefix import pack


def _keep_scored(_module: Any, _arguments: Any, kwargs: dict[str, Any], output: Any) -> None:
    first = kwargs.get("scored_from")
    if first is not None:
        output.last_hidden_state = output.last_hidden_state[:, first:]


def score_completions_only(model: Any) -> None:
    """Let forwards with `scored_from=N` hand only the positions from N on to the language-model head."""
    base_model(model).model.register_forward_hook(_keep_scored, with_kwargs=True)


def shared_prefix_logps(
    model: Any, prompt: PromptInputs, completion_ids_GC: Tensor, completion_mask_GC: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies (G, C), zero at padding; one forward over the packed row.

    Entropies are None where the model's fused head does not compute them (a reference model).
    """
    G, C = completion_ids_GC.shape
    arguments, shift_labels = pack(prompt, completion_ids_GC, completion_mask_GC)
    output = model(**arguments, shift_labels=shift_labels, fused_lm_head=True)
    entropies = None if output.entropy is None else output.entropy.view(G, C)
    return output.log_probs.view(G, C), entropies


def per_completion_logps(
    model: Any, prompt: PromptInputs, completion_ids_GC: Tensor, completion_mask_GC: Tensor, pad_token_id: int
) -> tuple[Tensor, Tensor | None]:
    """The same from G ordinary rows, each with its own copy of the prompt and the video."""
    rows = [(prompt, completion) for completion in completion_ids_GC]
    arguments, _ = per_completion_batch(rows, pad_token_id)
    P = prompt.input_ids_L.numel()
    # The output at a completion's last token predicts nothing.
    shift_labels = F.pad(completion_ids_GC.masked_fill(completion_mask_GC == 0, IGNORE), (0, 1), value=IGNORE)
    output = model(**arguments, scored_from=P - 1, shift_labels=shift_labels, fused_lm_head=True)
    entropies = None if output.entropy is None else output.entropy[:, :-1]
    return output.log_probs[:, :-1], entropies
