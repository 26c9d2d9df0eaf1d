"""Helpers of all components: logging, one-line errors, exit codes, and artifacts."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarft.errors import report_errors


@contextmanager
def run_component(name: str) -> Iterator[logging.Logger]:
    """Run a component like a command: log in one format, report an error in one line, and exit; yields its logger.

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
        yield logging.getLogger(f"components.{name}.component")


def copy_report(results: Any, report: Any, name: str = "report.html") -> None:
    """Copy the report in a folder of results to its own artifact, which Kubeflow displays."""
    shutil.copyfile(Path(results.path) / name, report.path)


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Log values to a metrics artifact."""
    for name, value in values.items():
        artifact.log_metric(name, value)
    save_metadata(artifact)


def save_metadata(artifact: Any) -> None:
    """Write the metadata of an artifact to its path, as JSON.

    Kubeflow stores the values of a metrics artifact only as metadata, and its local cache treats an artifact without a
    file as lost.
    """
    Path(artifact.path).write_text(json.dumps(artifact.metadata) + "\n", encoding="utf-8")
