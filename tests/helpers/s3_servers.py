"""S3 servers on loopback, and a proxy in front of them that cuts connections."""

import contextlib
import random
import socket
import subprocess
import sys
import sysconfig
import threading
import time
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


SERVERS = {"moto": moto, "rclone": rclone}


@contextlib.contextmanager
def serving(name, folder):
    """Run a server in its own process; yield its port."""
    port = free_port()
    with subprocess.Popen(SERVERS[name](folder, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        try:
            yield port
        finally:
            server.terminate()


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
