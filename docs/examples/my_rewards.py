"""A custom reward: `rarft train ... --reward_funcs format refuse_iou docs/examples/my_rewards.py:brevity`."""

from rarft.completion import parse_completion
from rarft.rewards.columns import completion_text


def brevity(completions, completion_ids, **columns):
    """Return 1 for a completion of at most 40 tokens, less for a longer one, and 0 from 80 tokens on.

    Args:
        completions: Texts or conversations: in training the whole batch, with the completions of a prompt next to
            each other; in `rarft score` one at a time.
        completion_ids: Token ids of each completion.
        columns: Columns of the dataset (`task_type`, `solution`, `solutions`, `durations`, `query`,
            `reference_queries`, `gt_answers`, `contrast_answers`), and `prompts`, `log_metric`, `log_extra`,
            `trainer_state`.

    Returns:
        One number per completion; None where the reward does not apply.
    """
    rewards = []
    for completion, ids in zip(completions, completion_ids, strict=True):
        has_answer = parse_completion(completion_text(completion)).answer is not None
        rewards.append(max(0.0, min(1.0, 2 - len(ids) / 40)) if has_answer else None)
    return rewards
