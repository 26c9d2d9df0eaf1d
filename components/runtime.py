"""Setup that all components share: logging, one-line errors and exit codes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rarft.errors import report_errors


@contextmanager
def run_component(name: str) -> Iterator[None]:
    """Run a component like a command: log in one format, report an error in one line, and exit.

    The Kubeflow executor logs the records of all libraries in its own format; without its handler, each line appears
    once.

    Raises:
        SystemExit: Code 2 after an `InputError`, 1 after any other exception.
    """
    root = logging.getLogger()
    for handler in [each for each in root.handlers if type(each) is logging.StreamHandler]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    with report_errors(name):
        yield
