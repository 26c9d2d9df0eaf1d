"""The benchmark for GPUs runs at its small size on a CPU."""

import torch

from benchmarks import gpu


def test_table(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu", "--size", "small", "--repeats", "1"])
    gpu.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == [
        "vision tower: stock", "vision tower: rarft", "kernels: vision tower",
        "rollout: rarft", "rollout: stock",
        *["forward, backward: packed", "forward, backward: rows"] * 2,
        "packed against rows", "kernels: packed",
        "error against float32: vision tower", "error against float32: log-probabilities",
    ]  # fmt: skip


def test_packed_rows_equal_rows_per_completion():
    """In float32, by the functions that compare them in bfloat16 on a GPU."""
    size = gpu.SIZES["small"]
    model = gpu.build_model(size, "cpu", torch.float32)
    mean, largest, gradients = gpu.compare_gradients(model, gpu.make_group(300, 3, 12, model))
    assert 0 < mean < largest < 1e-5
    assert 0 < gradients < 1e-5
