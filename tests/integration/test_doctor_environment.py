"""Findings of `rarft doctor` in the environment of this machine."""

import resource
import sys

import pytest

from helpers.s3_servers import buckets
from rarft import user_cache
from rarft.cluster import doctor, doctor_environment
from rarft.cluster.doctor_environment import SkippedCheckError
from rarft.errors import InputError

CLOSED = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory):
    with buckets("seaweedfs", tmp_path_factory.mktemp("store"), "runs"):
        yield


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with buckets("moto", tmp_path_factory.mktemp("store"), "runs"):
        yield


def test_passing_checks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(doctor_environment, "_MIN_TEMPORARY", 0)
    assert doctor_environment.caches() == f"{tmp_path}/rarft, models in {tmp_path}/hf"
    assert doctor_environment.temporary_space().endswith(user_cache.tempfile.gettempdir())
    assert "open files" in doctor_environment.limits()
    assert "utf-8" in doctor_environment.text_encoding()
    assert "GB in" in doctor_environment.shared_memory(0)


def low_open_files(monkeypatch):
    monkeypatch.setattr(
        resource, "getrlimit", lambda name: (256, 4096) if name == resource.RLIMIT_NOFILE else (-1, -1)
    )
    return doctor_environment.limits


def small_shared_memory(monkeypatch):
    monkeypatch.setattr(doctor_environment, "_MIN_SHARED_MEMORY", 1e18)
    return lambda: doctor_environment.shared_memory(8)


def unwritable_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/proc/none")
    return doctor_environment.caches


def unwritable_models(monkeypatch):
    monkeypatch.setenv("HF_HOME", "/proc/none")
    return doctor_environment.caches


def unwritable_temporary(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc/none")
    return doctor_environment.temporary_space


def small_temporary(monkeypatch):
    monkeypatch.setattr(doctor_environment, "_MIN_TEMPORARY", 1e18)
    return doctor_environment.temporary_space


def ascii_locale(monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    return doctor_environment.text_encoding


def unreachable_hub(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    return doctor_environment.hub


def bad_project(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    return doctor_environment.tracker


def unreachable_store(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "SENTINEL-0123")
    monkeypatch.setenv("AWS_ENDPOINT_URL", CLOSED)
    monkeypatch.setattr("rarft.storage.s3._REQUEST_ATTEMPTS", 1)
    return doctor_environment.store


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (low_open_files, "256 open files; raise it"),
        (small_shared_memory, "/dev/shm: .* MB for 8 GPUs"),
        (unwritable_home, "/proc/none.*; set XDG_CACHE_HOME"),
        (unwritable_models, "/proc/none.*; set HF_HOME"),
        (unwritable_temporary, "TMPDIR=/proc/none: cannot be written"),
        (small_temporary, "GB free in .*; set TMPDIR"),
        (ascii_locale, "ascii: .*LC_ALL"),
        (unreachable_hub, f"{CLOSED}: unreachable"),
        (bad_project, "WANDB_PROJECT a/b"),
        (unreachable_store, f"{CLOSED}: cannot be read"),
    ],
)
def test_failing_checks(monkeypatch, case, problem):
    with pytest.raises(InputError, match=problem) as raised:
        case(monkeypatch)()
    assert "SENTINEL" not in str(raised.value)


def test_skipped_checks(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SkippedCheckError, match="HF_HUB_OFFLINE is set"):
        doctor_environment.hub()
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SkippedCheckError, match="no W&B credentials"):
        doctor_environment.tracker()
    finding = doctor._run("hub", doctor_environment.hub)
    assert finding == ("hub", "skipped", "HF_HUB_OFFLINE is set; models must be in folders or in the cache")


def test_store(seaweedfs, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "garage")
    assert "accepts requests signed for garage" in doctor_environment.store()


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_store_rejects_signature(seaweedfs, monkeypatch, name):
    monkeypatch.setenv(name, "wrong-credential")
    with pytest.raises(InputError, match=name):
        doctor_environment.store()


def test_store_clock_skew(moto, monkeypatch):
    monkeypatch.setattr(doctor_environment.time, "time", lambda: 4e9)
    with pytest.raises(InputError, match="clock differs by"):
        doctor_environment.store()


class Driver:
    def __init__(self, version):
        self._version = version

    def cuDriverGetVersion(self, pointer):  # noqa: N802
        pointer._obj.value = self._version


@pytest.mark.parametrize(
    ("driver", "torch_cuda", "passes"), [(13000, "12.8", True), (12080, "12.8", True), (11080, "12.8", False)]
)
def test_cuda_driver(monkeypatch, driver, torch_cuda, passes):
    import torch

    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(doctor_environment.ctypes, "CDLL", lambda name: Driver(driver))
    if passes:
        assert f"torch for CUDA {torch_cuda}" in doctor_environment.cuda_driver()
    else:
        with pytest.raises(InputError, match=r"driver for CUDA 11\.8, torch for CUDA 12\.8: update the driver"):
            doctor_environment.cuda_driver()
