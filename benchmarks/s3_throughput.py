"""Throughput of folders to and from an object store, compared with boto3: `python benchmarks/s3_throughput.py`.

Uploads and downloads a folder of 2 GB with its manifest, and a single file of the same size by boto3 with one pass of
SHA-256. The store is rclone's S3 server on loopback, on the same disk. Alternating pairs, medians.
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
from rarft.storage.location import S3Folder
from rarft.storage.manifest import hash_files, write_manifest
from rarft.storage.sync import download_folder, upload_folder

MANIFEST = "checkpoint.json"
BUCKET = "s3://benchmark"


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """Start rclone's S3 server, and set the environment variables that point to it."""
    port = "28765"
    keys = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    command = [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "benchmark,benchmark"]
    server = subprocess.Popen([*command, str(folder)], stderr=subprocess.DEVNULL)
    time.sleep(2)
    s3.client().create_bucket(Bucket="benchmark")
    return server


def wall_seconds(function: Callable[[], object]) -> float:
    """Return the wall seconds of a function, after earlier writes have reached the disk."""
    os.sync()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def write_checkpoint(folder: Path, size: int) -> None:
    """Write random files like those of a checkpoint: weight shards, optimizer shards and small files."""
    folder.mkdir()
    shards = {"model-1.safetensors": 0.1, "model-2.safetensors": 0.1, "optim-0.pt": 0.4, "optim-1.pt": 0.3999}
    for name, fraction in shards.items():
        (folder / name).write_bytes(os.urandom(int(size * fraction)))
    for number in range(20):
        (folder / f"small-{number}.json").write_bytes(os.urandom(int(size * 0.0001 / 20)))


def measure(work_dir: Path, size: int, repeats: int) -> None:
    """Measure uploads and downloads of both, and print the throughput."""
    single, folder, remote = work_dir / "single", work_dir / "folder", S3Folder(BUCKET).child("folder")
    single.write_bytes(os.urandom(size))
    write_checkpoint(folder, size)
    times: dict[str, list[float]] = {"upload, boto3": [], "upload": [], "download, boto3": [], "download": []}

    def upload_single() -> None:
        hash_file(single)
        s3.client().upload_file(str(single), "benchmark", "single")

    def upload() -> None:
        write_manifest(folder, MANIFEST, {}, hash_files(folder, MANIFEST))
        upload_folder(folder, remote, MANIFEST)

    def download_single() -> None:
        s3.client().download_file("benchmark", "single", str(work_dir / "single-copy"))
        hash_file(work_dir / "single-copy")

    for _ in range(repeats):
        S3Folder(BUCKET).remove()
        times["upload, boto3"].append(wall_seconds(upload_single))
        times["upload"].append(wall_seconds(upload))
        times["download, boto3"].append(wall_seconds(download_single))
        times["download"].append(wall_seconds(lambda: download_folder(remote, work_dir / "copy", MANIFEST)))
        (work_dir / "single-copy").unlink()
        shutil.rmtree(work_dir / "copy")
    for name in ("upload", "download"):
        boto3_s, folder_s = median(times[f"{name}, boto3"]), median(times[name])
        ratios = [other / own for other, own in zip(times[f"{name}, boto3"], times[name], strict=True)]
        print(
            f"{name:8}  one file by boto3 with SHA-256 {size / boto3_s / 1e6:6.0f} MB/s   folder "
            f"{size / folder_s / 1e6:6.0f} MB/s   ratio {median(ratios):.2f}"
        )


def main() -> None:
    """Start the store and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the folder and of the file")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = Path(temporary)
        (work_dir / "store").mkdir()
        server = serve(work_dir / "store")
        try:
            measure(work_dir, int(options.gigabytes * 1e9), options.repeats)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
