"""A folder of 2 GB to an object store and back, against boto3 with a single file and one pass of SHA-256.

`python benchmarks/transfer.py`: rclone's S3 server on loopback, on the same disk; pairs in turn, medians.
"""

import argparse
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rarft.storage import s3
from rarft.storage.hashing import hash_file
from rarft.storage.manifest import hash_files, write_manifest
from rarft.storage.sync import download_folder, upload_folder

MANIFEST = "checkpoint.json"
BUCKET = "s3://benchmark"


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """rclone's server, and the environment that leads to it."""
    port = "28765"
    keys = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    command = [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "benchmark,benchmark"]
    server = subprocess.Popen([*command, str(folder)], stderr=subprocess.DEVNULL)
    time.sleep(2)
    s3.client().create_bucket(Bucket="benchmark")
    return server


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes, all that was written before on the disk."""
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    size = int(options.gigabytes * 1e9)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "store").mkdir()
        server = serve(place / "store")
        try:
            measure(place, size, options.repeats)
        finally:
            server.terminate()


def measure(place: Path, size: int, repeats: int) -> None:
    """Up and down, the alternative and ours in turn."""
    single, folder = place / "single", place / "folder"
    single.write_bytes(os.urandom(size))
    folder.mkdir()
    # As a checkpoint: shards of weights, shards of the optimizer, and small files.
    shares = {"model-1.safetensors": 0.1, "model-2.safetensors": 0.1, "optim-0.pt": 0.4, "optim-1.pt": 0.3999}
    for name, share in shares.items():
        (folder / name).write_bytes(os.urandom(int(size * share)))
    for number in range(20):
        (folder / f"small-{number}.json").write_bytes(os.urandom(int(size * 0.0001 / 20)))
    took: dict[str, list[float]] = {"up, boto3": [], "up": [], "down, boto3": [], "down": []}

    def up_single() -> None:
        hash_file(single)
        s3.client().upload_file(str(single), "benchmark", "single")

    def up_folder() -> None:
        write_manifest(folder, MANIFEST, {}, hash_files(folder, MANIFEST))
        upload_folder(folder, f"{BUCKET}/folder", MANIFEST, "--out")

    def down_single() -> None:
        s3.client().download_file("benchmark", "single", str(place / "got-single"))
        hash_file(place / "got-single")

    for _ in range(repeats):
        for name in list(s3.sizes(BUCKET, "--out")):
            s3.delete(f"{BUCKET}/{name}", "--out")
        took["up, boto3"].append(timed(up_single))
        took["up"].append(timed(up_folder))
        took["down, boto3"].append(timed(down_single))
        took["down"].append(timed(lambda: download_folder(f"{BUCKET}/folder", place / "got", MANIFEST, "--out")))
        (place / "got-single").unlink()
        shutil.rmtree(place / "got")
    for name in ("up", "down"):
        alternative, ours = median(took[f"{name}, boto3"]), median(took[name])
        ratios = [other / own for other, own in zip(took[f"{name}, boto3"], took[name], strict=True)]
        print(
            f"{name:4}  one file by boto3 and a SHA-256 pass {size / alternative / 1e6:6.0f} MB/s   a folder by ours "
            f"{size / ours / 1e6:6.0f} MB/s   {median(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
