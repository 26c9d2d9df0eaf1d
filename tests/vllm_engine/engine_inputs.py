"""Compare the patches and positions in the engine with those of training, for each kind of video file in a folder.

Run it as a process: `python tests/vllm_engine/engine_inputs.py VIDEO...`. It prints
the number of videos that are equal.
"""

import os
import sys

import cpu_engine
import torch

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def main(*videos):
    from transformers import AutoConfig
    from vllm import LLM, SamplingParams
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Model

    from rarft.checkpoint.source import checkpoint_path
    from rarft.models.qwen2_5_vl.load import load_processor
    from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
    from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
    from rarft.models.qwen2_5_vl.prompt_size import PromptSize
    from rarft.models.qwen2_5_vl.vllm_rollout import engine_options, engine_prompt, read_outputs

    seen = {}
    positions_of, embed = Model.get_mrope_input_positions, Model.embed_multimodal

    def recorded_positions(self, *arguments, **options):
        result = positions_of(self, *arguments, **options)
        seen["positions"] = result[0]
        return result

    def recorded_embed(self, **inputs):
        seen["patches"] = inputs["pixel_values_videos"]
        return embed(self, **inputs)

    Model.get_mrope_input_positions, Model.embed_multimodal = recorded_positions, recorded_embed
    path = checkpoint_path("tiny")
    config = AutoConfig.from_pretrained(path)
    encoder = PromptEncoder(load_processor("tiny"), config, PromptConfig.load("tiny").sampling, keep_frames=True)
    mean, std = (
        torch.tensor(getattr(encoder.processor.video_processor, name))[:, None] for name in ("image_mean", "image_std")
    )
    engine = LLM(model=path, **engine_options(PromptSize(2000, 100, 8), torch.float32, 4096))
    for video in videos:
        seen.clear()
        engine.reset_prefix_cache()
        engine.llm_engine.reset_encoder_cache()  # files of two kinds may have the same frames
        prompt = encoder.encode(video_prompt("", "Find: a ring", video))
        request = engine_prompt(prompt, config.video_token_id)
        sampling = SamplingParams(max_tokens=1, logprobs=0)
        read_outputs([prompt], engine.generate([request], sampling_params=sampling, use_tqdm=False))
        assert torch.equal(seen["positions"], prompt.position_ids_3L), video
        # The engine normalizes pixels in the model.
        pixels = (prompt.video_ND.unflatten(1, (3, -1)) * std + mean).mul(255).round().flatten(1)
        assert torch.equal(seen["patches"].float().reshape(pixels.shape), pixels), video
    print(len(videos))


if __name__ == "__main__":
    cpu_engine.keep_weights()
    main(*sys.argv[1:])
