"""A full disk: one line with the path, and nothing half-written. A limit on file sizes replaces the full disk."""

import json
import resource
import signal

import pytest

from rarft.storage import files


@pytest.fixture
def limit():
    """Function that limits the size of the files that this process and its children write, in bytes."""
    previous, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, previous[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def predictions(validated, tmp_path):
    rows = [json.loads(line) for line in (validated / "riq.jsonl").read_text().splitlines()]
    file = tmp_path / "predictions.jsonl"
    completion = "<think>t</think><answer>1 to 2</answer>"
    file.write_text("".join(json.dumps({"id": row["id"], "completion": completion}) + "\n" for row in rows))
    return file


def commands(sample_set, validated, predictions):
    return {
        "validate": ["validate", sample_set / "train.json", "--probe", "none"],
        "embed": ["embed", validated],
        "evaluate": ["evaluate", "--predictions", predictions, "--data", validated],
        "score": ["score", predictions, "--data", validated],
        "make-dataset": ["make-dataset", "--train", "1", "--eval", "0"],
    }


@pytest.mark.parametrize("name", ["validate", "embed", "evaluate", "score", "make-dataset"])
def test_disk_full(main, limit, sample_set, validated, predictions, tmp_path, name):
    command = commands(sample_set, validated, predictions)[name]
    limit(300)
    code, _, errors = main(*command, "--out", "o")
    limit(resource.RLIM_INFINITY)
    assert code == 2, errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"rarft {name}: o")
    assert "cannot be written (File too large); free space" in line
    assert not [path for path in (tmp_path / "o").rglob("*") if path.is_file() and path.stat().st_size]
    code, _, errors = main(*command, "--out", "o")
    assert code == 0, errors


@pytest.mark.parametrize(
    ("error", "is_disk_error"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("a"), False),
    ],
)
def test_report_disk_errors(error, is_disk_error):
    expected = files.InputError if is_disk_error else type(error)
    with pytest.raises(expected) as raised, files.report_disk_errors("folder"):
        raise error
    assert (raised.value is error) != is_disk_error
    assert not is_disk_error or str(raised.value).startswith("folder: cannot be written (")
