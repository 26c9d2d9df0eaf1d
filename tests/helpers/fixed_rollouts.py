"""`rarft` with rollouts that depend only on the prompt, to compare runs on different numbers of ranks."""

import sys

import torch

from rarft.cli.main import main
from rarft.training import trainer


def fixed_rollouts(model, prompts, num_generations, generation_config):
    """Return random tokens of random lengths, from a generator that is seeded by the prompt's tokens."""
    completions = []
    for prompt in prompts:
        generator = torch.Generator().manual_seed(int(prompt.input_ids_L.sum()))
        for _ in range(num_generations):
            length = int(torch.randint(3, 12, (), generator=generator))
            completions.append(torch.randint(256, 360, (length,), generator=generator).tolist())
    return completions


if __name__ == "__main__":
    trainer.generate = fixed_rollouts
    main(sys.argv[1:])
