"""CPU time of decoding validation: `python benchmarks/validate_videos.py [--clips N]`.

Makes a clip of 30 s in 480p (H.264 with B-frames, 30 frames per second) and copies that differ for the cache, and
measures in one run, one after the other:

- validation: `rarft validate` in its own process, with its worker processes and an empty cache;
- second run: the same command, which takes everything from the cache;
- ffmpeg: `ffmpeg -threads 1 -i CLIP -vf fps=2 -f null -` for each clip, which decodes the clip and drops all frames
  but as many as validation decodes. On one thread it takes less CPU time than with its default.

`ffmpeg` has to be installed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from decode import make_video

SECONDS = 30


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write copies of a clip that differ in their last bytes, and return their paths."""
    make_video(folder / "clip.mp4", 480, 854, SECONDS // 3, 3)
    content = (folder / "clip.mp4").read_bytes()
    (folder / "clip.mp4").unlink()
    clips = [folder / f"{number:05d}.mp4" for number in range(count)]
    for number, clip in enumerate(clips):
        free_box = (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
        clip.write_bytes(content + free_box)
    return clips


def write_annotations(path: Path, clips: list[Path]) -> None:
    """Write an item for each clip."""
    items = [
        {
            "video": clip.name,
            "query_text": f"a person moves {number}",
            "timestamp": [1.0, 5.0],
            "GRPO": [{"q": f"a person moves {number}", "a": "<answer>1.0 to 5.0</answer>", "r": True}],
        }
        for number, clip in enumerate(clips)
    ]
    path.write_text(json.dumps(items))


def run(*command: str) -> tuple[float, float]:
    """Run a command, and return the CPU seconds of its processes and the wall seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--folder", help="Folder for the clips (default: a temporary one).")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        clips = write_clips(folder, options.clips)
        write_annotations(folder / "in.json", clips)
        flags = ["--out", str(folder / "out"), "--video-cache", str(folder / "cache.sqlite")]
        command = [sys.executable, "-m", "rarft.cli", "validate", str(folder / "in.json"), "--strict", *flags]
        rows = {"validation": run(*command), "second run": run(*command)}
        decodings = [
            run(
                "ffmpeg",
                "-v",
                "error",
                "-nostdin",
                "-threads",
                "1",
                "-i",
                str(clip),
                "-vf",
                "fps=2",
                "-f",
                "null",
                "-",
            )
            for clip in clips
        ]
        cpu, wall = (sum(column) for column in zip(*decodings, strict=True))
        rows["ffmpeg"] = cpu, wall
        print(f"| {len(clips)} clips | CPU s | wall s | CPU relative to ffmpeg | wall relative to the first |")
        print("|---|---|---|---|---|")
        for name, (row_cpu, row_wall) in rows.items():
            print(
                f"| {name} | {row_cpu:.2f} | {row_wall:.2f} | {row_cpu / cpu:.3f} "
                f"| {row_wall / rows['validation'][1]:.3f} |"
            )


if __name__ == "__main__":
    main()
