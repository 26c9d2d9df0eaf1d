"""Imports of libraries that look at their environment do not break tests or commands."""

import os
import subprocess
import sys

import pytest

from helpers.paths import ROOT

IN_A_POD = """
import os
is_dir = os.path.isdir
os.path.isdir = lambda path: str(path).startswith("/var/run/secrets") or is_dir(path)
"""
UNKNOWN_USER = """
import os, pwd
def fail(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = fail
os.environ.pop("HOME", None)
"""
IMPORTS = {
    "operator models": "import helpers.operator_models",
    "steps": "import rarft.steps",
    "pipelines": "import pipelines.local, pipelines.submit",
    "cluster": "import rarft.cluster.client, rarft.cluster.launcher, rarft.cluster.doctor_cluster",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_import(name, tmp_path):
    """A pod without a mounted service account, and a user id that is not in /etc/passwd."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TMPDIR": str(tmp_path)}
    code = f"{IN_A_POD}\n{UNKNOWN_USER}\n{IMPORTS[name]}"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
