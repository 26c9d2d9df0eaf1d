"""Commands of `rarft` in processes that are forked from one that has imported torch already."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
    import json, os, sys
    from rarft.cli.main import main, set_library_defaults
    set_library_defaults()
    import rarft.evaluation.evaluate, rarft.training.train, rarft.annotations.validate
    for line in sys.stdin:
        arguments, output = json.loads(line)
        child = os.fork()
        if not child:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1), os.dup2(file, 2)
            sys.argv = ["rarft", *arguments]
            main()
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """Runs commands of `rarft` in a folder, each in its own process."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._output = folder / "output.txt"
        program = [sys.executable, "-c", textwrap.dedent(_PROGRAM)]
        self._process = subprocess.Popen(
            program, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        print(json.dumps([list(arguments), str(self._output)]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline()), self._output.read_text()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
