"""The user's cache folder where it is missing, read-only or corrupt: commands work without it, and log that once."""

import os
import sqlite3
from pathlib import Path

import pytest

from rarft import user_cache
from rarft.errors import InputError, report_errors
from rarft.steps import default_work_dir
from rarft.storage.sqlite_cache import SqliteCache, default_cache

UNWRITABLE = "/proc/none"  # not even by root


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    for function in (user_cache.warn_once, user_cache._temporary_folder):
        function.cache_clear()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    user_cache._temporary_folder.cache_clear()


def unknown_user(monkeypatch):
    import pwd

    monkeypatch.delenv("HOME")

    def fail(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", fail)


@pytest.mark.parametrize("xdg", ["", "relative/folder"])
def test_cache_folder_default(monkeypatch, home, xdg):
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert user_cache.cache_folder() == home / ".cache" / "rarft"


def test_cache_folder_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache("a.sqlite") == tmp_path / "xdg" / "rarft" / "a.sqlite"


def read_only_file(monkeypatch, home):
    (home / ".cache" / "rarft").mkdir(parents=True)
    with sqlite3.connect(home / ".cache" / "rarft" / "a.sqlite") as database:
        database.execute("CREATE TABLE cache (key TEXT PRIMARY KEY, text TEXT)")
    connect = sqlite3.connect
    monkeypatch.setattr(  # permissions do not bind root
        sqlite3,
        "connect",
        lambda path, **options: (
            connect(f"file:{path}?mode=ro", uri=True) if str(path).startswith(str(home)) else connect(path, **options)
        ),
    )


def corrupt_file(monkeypatch, home):
    (home / ".cache" / "rarft").mkdir(parents=True)
    (home / ".cache" / "rarft" / "a.sqlite").write_text("not a database, but a text that is long enough " * 20)


CASES = {
    "unwritable home": lambda monkeypatch, home: monkeypatch.setenv("HOME", UNWRITABLE),
    "unwritable cache": lambda monkeypatch, home: monkeypatch.setenv("XDG_CACHE_HOME", UNWRITABLE),
    "unknown user": lambda monkeypatch, home: unknown_user(monkeypatch),
    "read-only file": read_only_file,
    "corrupt file": corrupt_file,
}


@pytest.mark.parametrize("case", CASES)
def test_default_cache_falls_back(monkeypatch, home, caplog, case):
    CASES[case](monkeypatch, home)
    paths = {default_cache("a.sqlite") for _ in range(3)}
    assert len(paths) == 1
    SqliteCache(paths.pop()).put({"key": "text"})
    assert len([record for record in caplog.records if "no cache is kept" in record.message]) == 1
    assert SqliteCache(default_cache("a.sqlite")).get("key") == "text"


def test_cache_that_the_user_names(tmp_path):
    with pytest.raises(InputError, match=r"cannot be used as a cache"):
        SqliteCache(Path(UNWRITABLE) / "a.sqlite")


def test_cache_on_a_full_disk(tmp_path):
    cache = SqliteCache(tmp_path / "a.sqlite")
    cache._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(InputError, match=rf"^{tmp_path}/a.sqlite: cannot be written \(database or disk is full\)"):
        cache.put({"key": "text" * 10_000})


def test_validate_without_home(monkeypatch, main, sample_set, home):
    monkeypatch.setenv("HOME", UNWRITABLE)
    code, _, errors = main("validate", sample_set / "train.json", "--out", "out", "--probe", "header")
    assert code == 0
    assert errors.count("no cache is kept") == 1


def test_umask(sample_set, main):
    previous = os.umask(0o077)
    try:
        for _ in range(2):
            assert main("validate", sample_set / "train.json", "--out", "out", "--probe", "header")[0] == 0
    finally:
        os.umask(previous)


def test_default_work_dir_without_home(monkeypatch):
    unknown_user(monkeypatch)
    with pytest.raises(InputError, match="no home folder"):
        default_work_dir("s3://b/a")


@pytest.mark.parametrize("case", ["home", "no home"])
def test_crash_log(monkeypatch, capsys, tmp_path, case):
    monkeypatch.setenv("KFP_TOKEN", "SENTINEL-1")
    monkeypatch.delenv("RARFT_TERMINATION_LOG", raising=False)
    if case == "no home":
        monkeypatch.setenv("HOME", UNWRITABLE)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended, report_errors("train"):
        raise ZeroDivisionError("a SENTINEL-1")
    assert ended.value.code == 1
    line = capsys.readouterr().err.strip()
    start, _, path = line.partition("; traceback: ")
    assert start == "rarft train: ZeroDivisionError: a ***"
    text = Path(path).read_text()
    assert "Traceback (most recent call last)" in text
    assert text.rstrip().endswith("ZeroDivisionError: a ***")


def test_crash_log_nowhere(monkeypatch, capsys):
    monkeypatch.setenv("HOME", UNWRITABLE)
    monkeypatch.setattr("tempfile.tempdir", UNWRITABLE)
    with pytest.raises(SystemExit), report_errors("train"):
        raise ZeroDivisionError("a")
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert errors.splitlines()[-1] == "rarft train: ZeroDivisionError: a"


def test_crash_logs_are_limited(home):
    from rarft.crash_log import _MAX_LOGS, write_crash_log

    for number in range(_MAX_LOGS + 5):
        write_crash_log(f"c{number}", ValueError("a"))
    assert len(list((home / ".cache" / "rarft" / "logs").iterdir())) == _MAX_LOGS


def test_interrupted_command(capsys):
    with pytest.raises(SystemExit) as ended, report_errors("embed"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "rarft embed: interrupted; rerun the same command to continue\n"
