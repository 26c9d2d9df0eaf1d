"""Removal of secrets from texts that are shown, logged, or written to files."""

import os
import re
from urllib.parse import quote

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)|ACCESS_KEY", re.IGNORECASE)
_MIN_LENGTH = 8  # of a value that is removed wherever it occurs; shorter ones, such as `none`, are words of messages
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b((?:X-Amz-)?(?:Signature|Credential|Security-Token)=)[^\s&,'\"]+"), r"\1***"),
    # Parameters of a URL such as `sig` and `access_token`.
    (
        re.compile(r"(?i)([?&](?:[\w-]*[_-])?(?:sig|signature|token|key|secret|password|credential)=)[^\s&#'\"<>)]+"),
        r"\1***",
    ),
    (re.compile(r"(?i)(--(?:[\w-]*[_-])?(?:token|key|secret|password)(?:=|\s+))[^\s:;]+"), r"\1***"),  # flags
    (re.compile(r"(\w://)[^\s/?#]+@"), r"\1***@"),  # user and password in a URL
)


def _secret_values() -> set[str]:
    """Return the values of variables such as KFP_TOKEN, as they are and as a part of a URL."""
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    parts = {part for value in values for part in (value.strip(), *value.split())}  # such as `Bearer` and a token
    # A path, such as AWS_WEB_IDENTITY_TOKEN_FILE, is not a secret.
    secrets = {part for part in parts if len(part) >= _MIN_LENGTH and not part.startswith("/")}
    return secrets | {quote(secret, safe="", errors="replace") for secret in secrets}


def redact(text: str) -> str:
    """Return a text with `***` instead of each secret: values of variables, signatures, and passwords in URLs."""
    for secret in sorted(_secret_values(), key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
