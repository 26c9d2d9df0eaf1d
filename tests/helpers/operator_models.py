"""Client of the training operator, imported without the service account of the machine that the tests run on.

At import, `kubeflow.training` reads the namespace of a pod, and fails in a pod without a mounted service account.
"""

import os
from typing import Any
from unittest import mock

_SECRETS = "/var/run/secrets"
_is_dir = os.path.isdir


def _is_dir_without_secrets(path: Any) -> bool:
    return not str(path).startswith(_SECRETS) and _is_dir(path)


with mock.patch("os.path.isdir", _is_dir_without_secrets):
    from kubeflow.training import ApiClient as TrainingClient

__all__ = ["TrainingClient"]
