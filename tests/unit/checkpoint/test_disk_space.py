"""Free space for checkpoints on volumes with a size limit, and the limits in the manifests."""

import shutil

import pytest

from rarft.checkpoint.disk_space import VOLUME_LIMIT_ENV, check_disk_space, free_bytes
from rarft.cluster.manifests import EXAMPLE
from rarft.cluster.pod_spec import pod_template
from rarft.errors import InputError
from rarft.training.preflight import PUBLISHED


@pytest.fixture
def volume(tmp_path):
    """Return a folder inside a volume that already has 3 MiB in another folder."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "model").write_bytes(b"x" * 3 * 2**20)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_limit_of_a_volume_counts(volume, monkeypatch):
    monkeypatch.delenv(VOLUME_LIMIT_ENV, raising=False)
    assert free_bytes(volume) == pytest.approx(shutil.disk_usage(volume).free, rel=0.1)
    monkeypatch.setenv(VOLUME_LIMIT_ENV, f"{volume.parent}={10 * 2**20}")
    assert free_bytes(volume) == pytest.approx(7 * 2**20, abs=2**16)
    check_disk_space(volume, 6 * 2**20)
    with pytest.raises(InputError, match=r"the checkpoints need about 0\.00839 GB, and 0\.00734 GB are free"):
        check_disk_space(volume, 8 * 2**20)


@pytest.mark.parametrize("limit", ["{volume}={above}", "{volume}/cache=1"], ids=["above the disk", "elsewhere"])
def test_limits_without_effect(volume, monkeypatch, limit):
    monkeypatch.setenv(VOLUME_LIMIT_ENV, limit.format(volume=volume.parent, above=2**60))
    assert free_bytes(volume) == pytest.approx(shutil.disk_usage(volume).free, rel=0.1)


def test_manifest_holds_the_checkpoints_of_its_preset():
    """ZeRO-3 saves 14 bytes per parameter. While it saves, one more than `--save_total_limit` is on the disk."""
    spec = pod_template(EXAMPLE, "pytorch")["spec"]
    (limit,) = (v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if v["name"] == "work")
    assert limit.endswith("Gi")
    size = int(limit.removesuffix("Gi")) * 2**30
    (kept,) = (int(flag.partition("=")[2]) for flag in EXAMPLE.arguments if flag.startswith("--save_total_limit="))
    model = PUBLISHED["7B"]
    assert size > (kept + 1) * 14 * model + 2 * 2 * model
    assert {"name": VOLUME_LIMIT_ENV, "value": f"/scratch={size}"} in spec["containers"][0]["env"]
