"""Excerpt of a failed container's log: what the ranks wrote, without the lines of torchrun."""

import re

_MAX_LINES = 30
_TORCHRUN = re.compile(
    r"""
    # A traceback that starts in torchrun. Its error is kept, unless the cause is a rank or SIGTERM.
    ^Traceback\ \(most\ recent\ call\ last\):\n
    \ \ File\ "[^"\n]*(?:/torchrun|/torch/distributed/[^"\n]*)",\ line\ .*\n
    (?:\ .*(?:\n|$))*
    (?:torch\.distributed\.elastic\.\S*(?:ChildFailedError|SignalException).*(?:\n|$))?
    # The report about the ranks.
    |^={20,}\n.*\ FAILED\n[\s\S]*?^={20,}(?:\n|$)
    # Lines that its modules log, such as `E0101 10:00:00.000000 7 torch/distributed/elastic/agent.py:9] failed`.
    |^\[?[WEIF]\d{4}\ .*\btorch/distributed/.*(?:\n|$)
    """,
    re.MULTILINE | re.VERBOSE,
)


def log_excerpt(log: str) -> list[str]:
    """Return the last lines of a log that the ranks wrote."""
    return _TORCHRUN.sub("", log).splitlines()[-_MAX_LINES:]
