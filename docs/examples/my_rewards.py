"""A reward of one's own: `rarft train ... --reward_funcs format refuse_iou docs/examples/my_rewards.py:brevity`."""

from rarft.completion import parse_completion
from rarft.rewards.columns import completion_text


def brevity(completions, completion_ids, **columns):
    """1 for a completion of no more than 40 tokens, less for a longer one, 0 from 80 tokens on.

    Args:
        completions: plain text or conversations; in training the whole batch, the completions of a prompt side by
            side, and in `rarft score` one at a time.
        completion_ids: their token ids.
        columns: the data set's columns (`task_type`, `solution`, `durations`, `query`, `reference_queries`,
            `gt_answers`, `contrast_answers`), and `prompts`, `log_metric`, `log_extra`, `trainer_state`.

    Returns:
        One number for each completion; None where the reward does not apply.
    """
    rewards = []
    for completion, ids in zip(completions, completion_ids, strict=True):
        answered = parse_completion(completion_text(completion)).answer is not None
        rewards.append(max(0.0, min(1.0, 2 - len(ids) / 40)) if answered else None)
    return rewards
