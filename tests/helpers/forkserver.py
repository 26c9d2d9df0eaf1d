"""Commands of `rarft` in processes that are forked from one that has imported torch already."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.s3_servers import free_port

_PROGRAM = """
    import json, os, runpy, sys
    from rarft.cli.main import main, set_library_defaults
    set_library_defaults()
    import deepspeed
    import pipelines.local, rarft.annotations.validate, rarft.evaluation.evaluate, rarft.training.train
    for line in sys.stdin:
        request = json.loads(line)
        if "process" in request:
            ended, status = os.waitpid(request["process"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
            continue
        child = os.fork()
        if not child:
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(output, 1), os.dup2(output, 2)
            sys.argv = [request["program"] or "rarft", *request["arguments"]]
            if request["program"]:
                runpy.run_path(request["program"], run_name="__main__")
            else:
                main()
            sys.exit()
        print(child, flush=True)
"""
_POLL_INTERVAL_S = 0.02


class ForkedProcess:
    """A process with the methods of `subprocess.Popen` that tests use; `output` is the file of its output."""

    def __init__(self, server: "ForkServer", pid: int, output: Path) -> None:
        self._server, self._code = server, None
        self.pid, self.output = pid, output

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._server.request(process=self.pid)
        return self._code

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(_POLL_INTERVAL_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """Runs commands of `rarft`, each in its own process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def request(self, **request: object) -> int | None:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        arguments: Sequence[object],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        output: str = "log",
        program: Path | None = None,
    ) -> ForkedProcess:
        """Start a command in a folder, or a program that is another file; its output is appended to a file there."""
        pid = self.request(
            arguments=list(map(str, arguments)),
            folder=str(folder),
            environment={**os.environ, **(environment or {})},
            output=output,
            program=str(program) if program else None,
        )
        return ForkedProcess(self, pid, folder / output)

    def run(self, arguments: Sequence[object], folder: Path, **options: object) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        (folder / "output.txt").unlink(missing_ok=True)
        process = self.start(arguments, folder, output="output.txt", **options)
        return process.wait(), process.output.read_text()

    def run_ranks(self, ranks: int, arguments: Sequence[object], folder: Path, program: Path | None = None) -> None:
        """Run a command in several ranks, which see the variables of torchrun; raise an error if one fails."""
        shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
        shared["MASTER_PORT"] = str(free_port())
        processes = [
            self.start(
                arguments, folder, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, f"rank-{rank}.log", program
            )
            for rank in range(ranks)
        ]
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(_POLL_INTERVAL_S)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert codes == [0] * ranks, "".join(process.output.read_text()[-3000:] for process in processes)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
