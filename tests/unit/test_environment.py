"""Variables of the environment: white space, invalid characters, and secrets that no message shows."""

import pytest

from rarft.environment import read_variable
from rarft.errors import InputError, one_line
from rarft.redaction import redact


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc", "abc"),
        ("abc\n", "abc"),
        (" abc\r\n", "abc"),
        ("Bearer abc\n", "abc"),
        ("bearer  abc", "abc"),
        ("", None),
    ],
)
def test_read_variable(monkeypatch, value, expected):
    monkeypatch.setenv("KFP_TOKEN", value)
    assert read_variable("KFP_TOKEN", prefix="Bearer ") == expected


@pytest.mark.parametrize("value", ["first-half second-half", "first-half\nsecond-half", "first-halfé"])
def test_read_variable_invalid(monkeypatch, value):
    monkeypatch.setenv("KFP_TOKEN", value)
    with pytest.raises(InputError, match=r"^KFP_TOKEN: contains a space") as raised:
        read_variable("KFP_TOKEN")
    assert "half" not in str(raised.value)


def test_read_variable_missing(monkeypatch):
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    assert read_variable("KFP_TOKEN") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("invalid header b'Bearer TOKEN-789012\\n'", "invalid header b'Bearer ***\\n'"),
        ("Credential=AKID/20260101/s3, Signature=0a1b2c", "Credential=***, Signature=***"),
        ("GET /k?X-Amz-Signature=0a1b&x=1", "GET /k?X-Amz-Signature=***&x=1"),
        ("http://user:pass@host/a: refused", "http://***@host/a: refused"),
        ("https://host:8080/a@b: refused", "https://host:8080/a@b: refused"),
        ("http://user:p@ss:w@host/a: refused", "http://***@host/a: refused"),
        ("https://token-1234@host/a", "https://***@host/a"),
        ("https://host/a?sig=0a1b&x=1&access_token=2c", "https://host/a?sig=***&x=1&access_token=***"),
        ("the header ab/cd+ef.1234 of a/b", "the header *** of a/b"),
        ("/list?key=ab%2Fcd%2Bef.1234", "/list?key=***"),
        ("GET /ab%2Fcd%2Bef.1234", "GET /***"),
        ("rarft train --hub_token hf-1 --max_new_tokens 5", "rarft train --hub_token *** --max_new_tokens 5"),
        ("--hub_token: not used", "--hub_token: not used"),
        ("none of the keys", "none of the keys"),
    ],
)
def test_redact(monkeypatch, text, expected):
    monkeypatch.setenv("KFP_TOKEN", "TOKEN-789012\n")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("HF_TOKEN", "Bearer ab/cd+ef.1234")
    assert redact(text) == expected


def test_one_line_redacts(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET-456789\n")
    assert one_line(ValueError("bad\nSECRET-456789\n")) == "ValueError: bad ***"
