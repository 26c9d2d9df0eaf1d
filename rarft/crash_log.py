"""Log file with the traceback of an unexpected error, whose path the error message contains."""

import platform
import sys
import tempfile
import time
import traceback
from os import getpid
from pathlib import Path

from rarft import __version__
from rarft.redaction import redact
from rarft.user_cache import cache_folder

_MAX_LOGS = 20


def write_crash_log(name: str, error: BaseException) -> Path | None:
    """Write a traceback, without secrets, to the user's cache folder or else the folder for temporary files.

    The newest logs are kept.

    Args:
        name: Name of the command.
        error: The unexpected error.

    Returns:
        Path of the log; None if neither folder can be written.
    """
    command = " ".join(sys.argv[1:])
    head = f"rarft {__version__}, Python {platform.python_version()}, {platform.platform()}\nrarft {command}\n\n"
    text = redact(head + "".join(traceback.format_exception(error)))
    cache = cache_folder()
    for folder in (*([cache / "logs"] if cache else []), _temporary_folder()):
        if folder is None:
            continue
        log = folder / f"rarft-{name}-{time.strftime('%Y%m%d-%H%M%S')}-{getpid()}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log.write_text(text, encoding="utf-8", errors="backslashreplace")
            for old in sorted(folder.glob("rarft-*.log"), key=lambda path: path.stat().st_mtime)[:-_MAX_LOGS]:
                old.unlink(missing_ok=True)
        except OSError:
            continue
        return log
    return None


def _temporary_folder() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written
        return None
