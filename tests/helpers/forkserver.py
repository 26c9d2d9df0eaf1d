"""Commands of `rarft` in processes that need not import torch first: forked off one that has."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
    import json, os, sys
    from rarft.cli import main as cli
    cli._quiet_libraries()
    import rarft.evaluation.evaluate, rarft.training.train, rarft.annotations.validate
    for line in sys.stdin:
        arguments, said = json.loads(line)
        child = os.fork()
        if not child:
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1), os.dup2(file, 2)
            sys.argv = ["rarft", *arguments]
            cli.main()
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmCommands:
    """Runs commands of `rarft` in a folder, each in a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._said = folder / "said.txt"
        program = [sys.executable, "-c", textwrap.dedent(_PROGRAM)]
        self._process = subprocess.Popen(
            program, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: Sequence[str]) -> tuple[int, str]:
        """The exit code of a command, and what it printed."""
        print(json.dumps([list(arguments), str(self._said)]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline()), self._said.read_text()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
