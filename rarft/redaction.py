"""Removal of secrets from texts that are shown or logged."""

import os
import re

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)|ACCESS_KEY", re.IGNORECASE)
_MIN_LENGTH = 8  # of a value that is removed wherever it occurs; shorter ones, such as `none`, are words of messages
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b((?:X-Amz-)?(?:Signature|Credential|Security-Token)=)[^\s&,'\"]+"), r"\1***"),
    (re.compile(r"(\w://)[^\s/@:]*:[^\s/@]*@"), r"\1***@"),  # user and password in a URL
)


def redact(text: str) -> str:
    """Return a text with `***` instead of each secret: values of variables such as KFP_TOKEN, and signatures."""
    values = {value.strip() for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _MIN_LENGTH and not value.startswith("/"):  # a path, such as AWS_WEB_IDENTITY_TOKEN_FILE
            text = text.replace(value, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
