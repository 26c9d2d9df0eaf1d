"""Time and memory of validation by size of the file: `python benchmarks/validation.py [QUERIES ...]`.

Writes synthetic annotations of the published format (two queries per item, every fiftieth segment ends after the
video), validates each file in its own process without opening videos, and prints CPU seconds, wall seconds and the
peak memory of the process and its workers (proportional set size, sampled).
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "person", "dog", "cat", "opens", "closes", "door", "window", "runs", "sits", "table", "red", "blue", "glass",
    "book", "phone", "walks", "takes", "puts", "holds", "drinks",
)  # fmt: skip


def write_annotations(path: Path, queries: int, seed: int = 0) -> None:
    """Write a JSON list of `queries` queries, two per item, about 470 bytes per query."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for index in range(queries // 2):
            duration = round(rng.uniform(10, 60), 2)
            start = round(rng.uniform(0, duration - 5), 1)
            end = round(
                min(start + rng.uniform(1, 10), duration) + (1.5 if index % 100 == 0 else 0.5 * (index % 100 == 50)), 1
            )
            query, other = (" ".join(rng.choices(WORDS, k=7)) for _ in range(2))
            item = {
                "video": f"/data/videos/{rng.randrange(queries // 3)}.mp4",
                "query_text": query,
                "timestamp": [start, end],
                "difficulty": None,
                "video_start": None,
                "video_end": None,
                "think": f"<think>\n<timestep>{start} to {end}</timestep> {query}.\n</think>",
                "duration": duration,
                "GRPO": [
                    {"q": query, "a": f"<answer>{start} to {end}</answer>", "r": True, "difficulty": "original"},
                    {
                        "q": other,
                        "a": f"<answer>The query does not match: {' '.join(rng.choices(WORDS, k=30))}.</answer>",
                        "r": False,
                        "c": ["Object/ObjectExistence"],
                        "q_origin": query,
                        "difficulty": "hard",
                    },
                ],
            }
            file.write(("[" if index == 0 else ",\n") + json.dumps(item))
        file.write("]\n")


def tree_memory(pid: int) -> int:
    """Return the kilobytes used by a process and its children, counting shared pages once."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # the process has ended
        return total
    return total + sum(tree_memory(int(child)) for child in children)


def main() -> None:
    """Validate files of growing size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    print(f"{'queries':>10} {'file':>9} {'CPU':>8} {'wall':>8} {'memory':>9} {'CPU per query':>14}")
    with tempfile.TemporaryDirectory() as folder:
        for size in parser.parse_args().queries:
            source = Path(folder) / f"{size}.json"
            write_annotations(source, size)
            flags = [str(source), "--probe", "none", "--out", f"{folder}/out"]
            command = [sys.executable, "-m", "rarft.cli", "validate", *flags]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            peak = 0
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None:
                    peak = max(peak, tree_memory(process.pid))
                    time.sleep(0.2)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{size:>10,} {source.stat().st_size / 1e6:>6.1f} MB {cpu:>6.1f} s {wall:>6.1f} s "
                f"{peak / 1024:>6.0f} MB {1e6 * cpu / size:>11.1f} us",
                flush=True,
            )


if __name__ == "__main__":
    main()
