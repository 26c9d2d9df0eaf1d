import hashlib

from rarft.storage.hashing import hash_file, hash_folder, hash_folder_stats, hash_packages, hash_text


def test_hash_file(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert hash_file(tmp_path / "a") == hash_file(str(tmp_path / "a")) == hashlib.sha256(b"content").hexdigest()


def test_hash_text():
    assert hash_text("a") == hashlib.sha256(b"a").hexdigest()
    assert len({hash_text("a", "b"), hash_text("ab"), hash_text("b", "a"), hash_text("a", "\ud800")}) == 4


def test_hash_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    hashes = [hash_folder(tmp_path)]
    (tmp_path / "b.md").write_text("2")
    assert hash_folder(tmp_path, lambda path: path.suffix != ".md") == hashes[0]
    hashes.append(hash_folder(tmp_path))
    (tmp_path / "sub" / "a").write_text("3")
    hashes.append(hash_folder(tmp_path))
    (tmp_path / "b.md").rename(tmp_path / "c.md")
    hashes.append(hash_folder(tmp_path))
    assert len(set(hashes)) == 4


def test_hash_folder_stats(tmp_path):
    (tmp_path / "a").write_text("1")
    before = hash_folder_stats(tmp_path)
    assert hash_folder_stats(tmp_path) == before
    (tmp_path / "a").write_text("12")
    assert hash_folder_stats(tmp_path) != before


def test_hash_packages(tmp_path, monkeypatch):
    package = tmp_path / "example_package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = hash_packages("example_package")
    (package / "__pycache__" / "a.pyc").write_text("")
    assert hash_packages("example_package") == before
    (package / "__init__.py").write_text("a = 2\n")
    assert hash_packages("example_package") != before
