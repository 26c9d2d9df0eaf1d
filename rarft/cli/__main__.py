"""Program `rarft`, and `python -m rarft.cli`, which is how torchrun starts it. Ctrl-C ends it with one line."""

import atexit
import contextlib
import os
import signal
import sys


def _leave_current_folder_last() -> None:
    """Search the current folder last for modules, where a `datasets.py` or a `docker/` would replace a library.

    It is needed for rewards in `package.module:function`. PYTHONSAFEPATH leaves it out.
    """
    with contextlib.suppress(OSError):  # the folder may be deleted
        if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
            sys.path.append(sys.path.pop(0))


def run() -> None:
    """Run the command line of this process."""
    _leave_current_folder_last()
    # Registered first, so it runs after all other functions: what the interpreter does then needs no message.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    code = 130  # `rarft.errors.EXIT_INTERRUPTED`
    try:
        from rarft.cli.main import main

        main()
        code = 0
    except KeyboardInterrupt:  # during the import
        print("rarft: interrupted; rerun the same command to continue", file=sys.stderr)
        raise SystemExit(code) from None
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        raise
    finally:  # the command is done; threads of libraries may take a while to end
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


if __name__ == "__main__":
    run()
