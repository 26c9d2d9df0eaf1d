"""Metrics artifacts as files.

Kubeflow stores the values of a metrics artifact only as metadata, and its local cache treats an artifact without a
file as lost.
"""

import json
from pathlib import Path
from typing import Any


def save_metadata(*artifacts: Any) -> None:
    """Write the metadata of each artifact to its path, as JSON."""
    for artifact in artifacts:
        Path(artifact.path).write_text(json.dumps(artifact.metadata) + "\n", encoding="utf-8")
