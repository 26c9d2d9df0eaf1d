"""Dockerfiles, locks and the compose file, without a Docker engine; `docker/ci/run.sh` builds and runs them."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.images import STEPS_IMAGE, TRAIN_IMAGE
from helpers.paths import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lock):
    lines = (ROOT / "docker" / "locks" / f"{lock}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def requirements(*extras):
    """Return the package's requirements with these extras, including the extras that they refer to."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            found += requirements(*requirement.extras) if requirement.name == "rarft" else [requirement]
    return found


@pytest.mark.parametrize(
    ("lock", "extra"), [("validate", "pipeline"), ("steps", "all"), ("train", "all"), ("vllm", "vllm")]
)
def test_lock_satisfies_requirements(lock, extra):
    pinned = pins(lock)
    for requirement in requirements(extra):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_torch_versions_of_locks():
    assert not {"torch", "transformers", "sentence-transformers"} & pins("validate").keys()
    assert pins("steps")["torch"] == pins("train")["torch"]
    assert not [name for name in pins("steps") if name.startswith("nvidia")]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_copies_and_bases(path):
    text = path.read_text()
    assert text.count("ARG BASE_IMAGE=") == 1
    assert "# syntax=" not in text
    assert "RUN --" not in text
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in text.splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                source = source.replace("${LOCK}", "train")
                assert (ROOT / source).exists(), source
                assert any(f"!{source}".startswith(pattern) for pattern in ignored if pattern.startswith("!")), source
    stages = text.split("\nFROM ")[1:]
    final = [stage for stage in stages if "CMD" in stage]
    assert final
    for stage in final:
        (user,) = re.findall(r"^USER (.+)$", stage, re.MULTILINE)
        assert user.isdecimal()
        assert int(user) > 0


def test_compose_images_match_pipeline():
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    images = {name: re.sub(r"\$\{\w+:-(.+)\}", r"\1", service["image"]) for name, service in services.items()}
    assert images["local"] == images["steps"] == STEPS_IMAGE
    assert images["train"] == TRAIN_IMAGE
    for service in services.values():
        if "build" in service:
            assert (ROOT / "docker" / service["build"]["context"]).resolve() == ROOT
            assert ROOT / service["build"]["dockerfile"] in DOCKERFILES
