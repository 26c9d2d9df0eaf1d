"""Print how far the engine's log-probabilities are from the trainer's, without and with a reset encoder cache.

Run it as a process: `python tests/vllm_engine/weight_sync.py DATA OUT [flags of rarft train]`. Each line of its
table is the largest difference of a token, after the sync of the weights of that step. It also prints how often a
block of the trainer's vision tower ran with gradients.
"""

import json
import sys

import cpu_engine


def main(data, out, *flags):
    """Train for eight steps and measure the difference before and after the cache is reset."""
    import torch

    from rarft import steps
    from rarft.models.qwen2_5_vl.logprobs import per_completion_logps
    from rarft.training import vllm_engine

    table = []

    class Measured(vllm_engine.ColocatedEngine):
        def sync(self, step):
            reset = self._generation.llm.llm_engine.reset_encoder_cache
            without = []
            self._generation.llm.llm_engine.reset_encoder_cache = lambda: without.append(self.difference())
            super().sync(step)
            self._generation.llm.llm_engine.reset_encoder_cache = reset
            reset()
            self._generation.llm.reset_prefix_cache()
            table.append({"step": step + 1, "without": without[0], "with": self.difference()})

        def difference(self):
            """Return the largest difference over the tokens of new completions."""
            trainer = measured[0]
            prompts = trainer._groups
            ids, logprobs = self.generate(prompts, 2)
            largest = 0.0
            for index, prompt in enumerate(prompts):
                for row in (2 * index, 2 * index + 1):
                    ids_GC = torch.tensor([ids[row]])
                    with torch.no_grad():
                        logps = per_completion_logps(
                            trainer.model, prompt, ids_GC, torch.ones_like(ids_GC), with_entropy=False,
                            pad_token_id=trainer._tokenizer.pad_token_id,
                        )[0]  # fmt: skip
                    largest = max(largest, (logps[0] - torch.tensor(logprobs[row])).abs().max().item())
            return largest

    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock

    from rarft.training import trainer as trainer_module

    block_forward, passes = Qwen2_5_VLVisionBlock.forward, []

    def counted(self, *arguments, **keywords):
        passes.append(torch.is_grad_enabled())
        return block_forward(self, *arguments, **keywords)

    Qwen2_5_VLVisionBlock.forward = counted
    measured = []
    original = trainer_module.VideoGRPOTrainer._tokenize_prompts

    def remember(self, prompts):
        measured[:] = [self]
        return original(self, prompts)

    trainer_module.VideoGRPOTrainer._tokenize_prompts = remember
    trainer_module.ColocatedEngine = Measured
    steps.train(
        ["--preset", "tiny", "--train_data_path", data, "--out", out, "--use_vllm", "true", "--max_steps", "8",
         "--per_device_train_batch_size", "2", "--num_generations", "4", "--learning_rate", "1e-3",
         "--warmup_steps", "0", *flags]
    )  # fmt: skip
    print(json.dumps({"steps": table, "passes": sum(passes)}))


if __name__ == "__main__":
    cpu_engine.keep_weights()
    main(*sys.argv[1:])
