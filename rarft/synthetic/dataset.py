"""The synthetic RIQ dataset: short clips in which one colored shape does one thing during a known segment.

Every clip has 8 to 16 s of a noisy gray background. During its segment, a shape of one color slides, blinks or stays.
The answerable query names it. A refusable query changes one attribute (hard), two (medium) or three (easy). The
annotations are bitwise identical for the same seed, the clips for the same seed and version of FFmpeg.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from rarft.completion import format_segment
from rarft.segments import Segment
from rarft.storage.files import write_atomically

SIZE = 56  # height and width in pixels: 2 x 2 patches of Qwen2.5-VL after merging
FPS = 4
SHAPE_SIZE = 22  # pixels
SLIDE = 14  # pixels per half second; wraps around

COLORS = {"red": (220, 50, 40), "green": (40, 190, 70), "blue": (50, 80, 230), "yellow": (230, 210, 50)}
SHAPES = ("square", "ring", "cross")
MOTIONS = ("slides", "blinks", "stays")
# Fields of `Scene` by these names. Refusals contain the names, and the packaged checkpoints learned `colour`.
ATTRIBUTES: dict[str, tuple[str, ...]] = {"colour": tuple(COLORS), "shape": SHAPES, "motion": MOTIONS}
CATEGORIES = {
    "colour": "Attribute/AttributeValue",
    "shape": "Object/ObjectExistence",
    "motion": "Object/ObjectMoving",
}
DIFFICULTY_OF_CHANGES = {1: "hard", 2: "medium", 3: "easy"}
# Fractions of the refusable queries that change one, two or three attributes.
CHANGES_WEIGHTS = {1: 0.6, 2: 0.2, 3: 0.2}


@dataclass(frozen=True)
class Scene:
    """Content of a clip. Times are in seconds, positions in pixels; `seed` determines the noise."""

    duration: int
    segment: Segment
    colour: str
    shape: str
    motion: str
    x: int
    y: int
    background: int
    seed: int

    @property
    def description(self) -> str:
        """Query that the scene answers."""
        return f"a {self.colour} {self.shape} {self.motion}"


def draw_scene(rng: np.random.Generator, duration: int | None = None) -> Scene:
    """Return a random scene of 8 to 16 s (or of `duration`) with a segment of 2 to 8 s on half seconds."""
    seconds = int(rng.integers(8, 17)) if duration is None else duration
    length = int(rng.integers(4, min(2 * seconds - 2, 16) + 1))  # in half seconds
    start = int(rng.integers(1, 2 * seconds - length))
    return Scene(
        duration=seconds,
        segment=(start / 2, (start + length) / 2),
        colour=str(rng.choice(list(COLORS))),
        shape=str(rng.choice(SHAPES)),
        motion=str(rng.choice(MOTIONS)),
        x=int(rng.integers(SIZE)),
        y=int(rng.integers(SIZE)),
        background=int(rng.integers(15, 70)),
        seed=int(rng.integers(1 << 31)),
    )


def mismatch(scene: Scene, rng: np.random.Generator, changes: int) -> tuple[Scene, list[str]]:
    """Return the scene with `changes` of its attributes replaced, and the names of those attributes."""
    changed = sorted(rng.choice(list(ATTRIBUTES), size=changes, replace=False).tolist())
    others = {name: [value for value in ATTRIBUTES[name] if value != getattr(scene, name)] for name in changed}
    new = {name: str(rng.choice(values)) for name, values in others.items()}
    return replace(scene, **new), changed  # type: ignore[arg-type]


def _shape_masks() -> dict[str, NDArray[np.bool_]]:
    y, x = np.mgrid[:SHAPE_SIZE, :SHAPE_SIZE] - (SHAPE_SIZE - 1) / 2
    radius = np.hypot(x, y)
    return {
        "square": np.ones((SHAPE_SIZE, SHAPE_SIZE), dtype=bool),
        "ring": (radius <= SHAPE_SIZE / 2) & (radius > SHAPE_SIZE / 2 - 5),
        "cross": (abs(x) < 3.5) | (abs(y) < 3.5),
    }


_MASKS = _shape_masks()


def render(scene: Scene, times: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the frames at `times` (seconds, shape (T,)) as uint8 of shape (T, SIZE, SIZE, 3)."""
    rng = np.random.default_rng(scene.seed)
    noise = rng.normal(0, 6, (len(times), SIZE, SIZE, 1)).astype(np.float32)
    frames = np.full((len(times), SIZE, SIZE, 3), scene.background, np.float32) + noise
    rows, columns = np.nonzero(_MASKS[scene.shape])
    color = np.array(COLORS[scene.colour], np.float32)
    start, end = scene.segment
    for frame, time in zip(frames, times, strict=True):
        if not start <= time < end:
            continue
        half_seconds = int((time - start) * 2 + 1e-4)
        shift = SLIDE * half_seconds if scene.motion == "slides" else 0
        brightness = 0.25 if scene.motion == "blinks" and half_seconds % 2 else 1.0
        value = scene.background + (color - scene.background) * brightness
        frame[(rows + scene.y) % SIZE, (columns + scene.x + shift) % SIZE] = value
    return frames.clip(0, 255).astype(np.uint8)


def write_clip(scene: Scene, path: Path) -> None:
    """Encode the scene as H.264 at `FPS` frames per second."""
    frames = render(scene, np.arange(scene.duration * FPS) / FPS + 1e-6)
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "superfast"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p", threads=1)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def refusal(scene: Scene, changed: list[str]) -> str:
    """Return a refusal without times that names what the clip shows instead of each changed attribute."""
    reasons = ", ".join(f"the {name} is {getattr(scene, name)}" for name in changed)
    return f"No moment matches the query: {reasons}."


def _annotation(scene: Scene, video: str, rng: np.random.Generator) -> dict[str, object]:
    changes = int(rng.choice(list(CHANGES_WEIGHTS), p=list(CHANGES_WEIGHTS.values())))
    other, changed = mismatch(scene, rng, changes)
    answer = format_segment(scene.segment)
    return {
        "video": video,
        "query_text": scene.description,
        "timestamp": list(scene.segment),
        "duration": float(scene.duration),
        "video_start": None,
        "video_end": None,
        "think": f"<think>\n<timestep>{answer}</timestep> {scene.description}.\n</think>",
        "difficulty": None,
        "GRPO": [
            {
                "q": scene.description,
                "a": f"<answer>{answer}</answer>",
                "r": True,
                "q_origin": scene.description,
                "difficulty": "original",
            },
            {
                "q": other.description,
                "a": f"<answer>{refusal(scene, changed)}</answer>",
                "r": False,
                "c": [CATEGORIES[name] for name in changed],
                "q_origin": scene.description,
                "difficulty": DIFFICULTY_OF_CHANGES[changes],
            },
        ],
    }


# Each split has its own random stream, so that its size does not change another split.
SPLITS = {"train": 0, "dev": 1, "eval": 2}


def split_rng(seed: int, split: str) -> np.random.Generator:
    """Return the random stream of a split."""
    return np.random.default_rng([seed, SPLITS[split]])


def write_split(out: Path, split: str, videos: int, seed: int) -> Iterator[Path]:
    """Write `out/videos/{split}_0000.mp4` and so on, then `out/{split}.json`; yield each path after it is written."""
    rng = split_rng(seed, split)
    folder = out / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for index in range(videos):
        scene = draw_scene(rng)
        path = folder / f"{split}_{index:04d}.mp4"
        with write_atomically(path) as temporary:
            write_clip(scene, temporary)
        items.append(_annotation(scene, f"videos/{path.name}", rng))
        yield path
    annotations = out / f"{split}.json"
    with write_atomically(annotations) as temporary:
        temporary.write_text(json.dumps(items, indent=1) + "\n", encoding="utf-8")
    yield annotations
