"""A Qwen2.5-VL model of one million parameters, with tokenizer, processor and chat template.

It uses the classes of the 7B model, and is saved and loaded by the Auto classes. Its vocabulary is a byte-level BPE
trained on the sentences of the synthetic dataset: it can encode any text, and those sentences in few tokens.
"""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from rarft import completion, prompts
from rarft.synthetic import dataset

# In the order of their ids in Qwen2.5's vocabulary.
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_CORPUS_SCENES = 2000
_SYSTEM_TURN = "system\nYou are a helpful assistant.\n"  # added by the chat template


def chat_template() -> str:
    """Return Qwen2.5-VL's chat template, which is part of TRL."""
    return resources.files("trl").joinpath("chat_templates", "qwen2_5_vl.jinja").read_text(encoding="utf-8")


def verdicts(scene: dataset.Scene, query: dataset.Scene) -> str:
    """Return each attribute of the clip and whether the query matches it, such as `red no` for a red shape."""
    pairs = [(getattr(scene, name), getattr(query, name)) for name in dataset.ATTRIBUTES]
    return ", ".join(f"{actual} {'yes' if actual == queried else 'no'}" for actual, queried in pairs)


def truthful_completion(scene: dataset.Scene, query: dataset.Scene, correction: str | None = None) -> str:
    """Return the completion of a truthful model for the clip of `scene` and the query that describes `query`.

    It consists of the verdicts, the answer and, for a mismatched query, the true correction or the given one.
    """
    changed = [name for name in dataset.ATTRIBUTES if getattr(scene, name) != getattr(query, name)]
    think = verdicts(scene, query)
    if changed:
        return completion.render_completion(think, dataset.refusal(scene, changed), correction or scene.description)
    return completion.render_completion(think, completion.format_segment(scene.segment))


def _corpus() -> Iterator[str]:
    """Yield sentences to train the tokenizer on."""
    rng = np.random.default_rng(0)
    for _ in range(_CORPUS_SCENES):
        scene = dataset.draw_scene(rng)
        query, _ = dataset.mismatch(scene, rng, changes=int(rng.integers(1, 4)))
        _, text = prompts.fill_prompt(prompts.PROMPTS["brief"], query.description, None)
        yield f"{_SYSTEM_TURN}user\n{text}\nassistant\n"
        yield truthful_completion(scene, query)
        yield truthful_completion(scene, scene)


def build_tokenizer() -> Qwen2Tokenizer:
    """Return a Qwen2 tokenizer with all 256 bytes, merges for the synthetic sentences, and the special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_of_words])
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    bpe.train_from_iterator(_corpus(), trainer)
    model = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    # Part of the vocabulary from the start, so that adding them keeps Qwen's order of ids.
    vocabulary |= {token: len(vocabulary) + index for index, token in enumerate(SPECIAL_TOKENS)}
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in model["merges"]],
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=131072,
        padding_side="left",
    )


def build_processor() -> Qwen2_5_VLProcessor:
    """Return a processor with this module's tokenizer and Qwen2.5-VL's chat template, image and video processing."""
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(cap_pixels_per_frame=False),
        chat_template=chat_template(),
    )


def build_model(tokenizer: Any, seed: int = 0, **text_overrides: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Return a randomly initialized float32 model: 4 language layers of width 128, 2 vision layers of width 96.

    `text_overrides` changes fields of the language model's configuration.
    """
    token_id = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
        "initializer_range": 0.06,
        "bos_token_id": None,
        "eos_token_id": token_id("<|im_end|>"),
        "pad_token_id": token_id("<|endoftext|>"),
    } | text_overrides
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 4,
            "out_hidden_size": text["hidden_size"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.06,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=token_id("<|im_end|>"), pad_token_id=token_id("<|endoftext|>")
    )
    return model
