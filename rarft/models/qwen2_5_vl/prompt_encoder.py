"""Encode a video and a query into model inputs, the same way in training, rollout and evaluation."""

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch

from rarft.models.qwen2_5_vl.mrope import prompt_positions
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.segments import Segment
from rarft.video.decode import Frames, read_frames
from rarft.video.sampling import FrameSampling

Message = dict[str, Any]
FrameReader = Callable[[str, FrameSampling, Segment | None], Frames]


def video_prompt(before: str, after: str, video: str, crop: Segment | None = None) -> list[Message]:
    """Return a conversation of one user turn: the video (its path, not its frames), with text before and after it."""
    part: dict[str, Any] = {"type": "video", "video": video}
    if crop is not None:
        part |= {"video_start": crop[0], "video_end": crop[1]}
    texts = [[{"type": "text", "text": text}] if text else [] for text in (before, after)]
    return [{"role": "user", "content": [*texts[0], part, *texts[1]]}]


def _without_none(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}


def _video_part(messages: list[Message]) -> dict[str, Any]:
    return next(part for part in messages[-1]["content"] if part["type"] == "video")


def video_path(messages: list[Message]) -> str:
    """Return the path of a conversation's video."""
    return str(_video_part(messages)["video"])


def prompt_text(messages: str | list[Message]) -> str:
    """Render a conversation of `video_prompt` for people, with the video as its path. Return a text unchanged."""
    if isinstance(messages, str):
        return messages
    parts = messages[-1]["content"]
    return " ".join(f"[{part['video']}]" if part["type"] == "video" else part["text"].strip() for part in parts)


def video_metadata(frames: Frames) -> dict[str, Any]:
    """Return what the processor needs to know about the times of a video's frames."""
    return {"fps": frames.file_fps, "frames_indices": frames.indices, "total_num_frames": frames.file_frames}


class PromptEncoder:
    """Encoder of conversations of `video_prompt` into `PromptInputs`."""

    def __init__(
        self,
        processor: Any,
        config: Any,
        sampling: FrameSampling,
        read: FrameReader = read_frames,
        keep_frames: bool = False,
        patch_dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Args:
            processor: Qwen2.5-VL processor.
            config: Model configuration.
            sampling: Frames of a video to read.
            read: Function that reads them, from the file or from a cache.
            keep_frames: Keep frames and conversation next to the patches, for an engine that makes its own.
            patch_dtype: Data type of the patches.
        """
        self._read, self._keep_frames, self._patch_dtype = read, keep_frames, patch_dtype
        self._lock = Lock()  # tokenizers are not thread-safe
        self.processor = processor
        self.sampling = sampling
        self.video_token_id: int = config.video_token_id
        self._tokens_per_second: float = config.vision_config.tokens_per_second
        self._merge: int = config.vision_config.spatial_merge_size
        self._temporal_patch: int = config.vision_config.temporal_patch_size

    def render(self, messages: list[Message]) -> str:
        """Return the prompt's text by the checkpoint's chat template, the video as one placeholder token."""
        # Datasets fill the keys that only other parts have with None, and chat templates test for a key: a text part
        # with the key `video` would become a second video.
        turns = [{**message, "content": list(map(_without_none, message["content"]))} for message in messages]
        return str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def count_text_tokens(self, messages: list[Message]) -> int:
        """Return the number of tokens of the prompt's text, without the video (decision D21)."""
        return len(self.processor.tokenizer(self.render(messages))["input_ids"])

    def encode(self, messages: list[Message]) -> PromptInputs:
        """Read the conversation's video and return the prompt's inputs, on the CPU."""
        return self.build_inputs(messages, self.read_video(messages))

    def read_video(self, messages: list[Message]) -> Frames:
        """Read the frames of the conversation's video; raise a `VideoError` if that fails."""
        part = _video_part(messages)
        start, end = part.get("video_start"), part.get("video_end")
        return self._read(part["video"], self.sampling, None if start is None or end is None else (start, end))

    def placeholder_inputs(self, messages: list[Message]) -> PromptInputs:
        """Return the prompt's inputs with one second of gray frames, for a video that cannot be read."""
        gray = torch.full((2, 3, 56, 56), 128, dtype=torch.uint8)
        return self.build_inputs(messages, Frames(gray, torch.tensor([0.0, 0.5], dtype=torch.float64), [0, 1], 2.0, 2))

    def build_inputs(self, messages: list[Message], frames: Frames) -> PromptInputs:
        """Return the tokens, patches and positions of a conversation, given its video's frames."""
        text = self.render(messages)
        with self._lock:
            batch = self.processor(
                text=[text],
                videos=[frames.pixels_TCHW],
                video_metadata=[video_metadata(frames)],
                do_sample_frames=False,
                do_resize=False,
                return_tensors="pt",
            )
        input_ids_L = batch["input_ids"][0]
        grid_thw_13 = batch["video_grid_thw"]
        T, H, W = grid_thw_13[0].tolist()
        positions_3L = prompt_positions(
            input_ids_L,
            self.video_token_id,
            [(T, H // self._merge, W // self._merge)],
            [self._temporal_patch / frames.sample_fps],
            self._tokens_per_second,
        )
        kept = (frames, messages) if self._keep_frames else ()
        video_ND = batch["pixel_values_videos"].to(self._patch_dtype)
        return PromptInputs(input_ids_L, positions_3L, video_ND, grid_thw_13, *kept)
