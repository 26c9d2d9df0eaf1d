"""Types of command-line values. Each raises argparse's own error, which names the flag."""

import argparse


def non_negative_int(text: str) -> int:
    """Parse an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a non-negative integer, not {text!r}")
    return int(text)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # fails every comparison


def fraction(text: str) -> float:
    """Parse a number between 0 and 1, both excluded."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {text!r}")
    return value


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def seconds(text: str) -> float:
    """Parse a finite number of seconds of at least 0."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a non-negative number of seconds, not {text!r}")
    return value


def quarantine_limit(text: str) -> str:
    """Check a percentage such as 5%, or a number, and return it as it is."""
    from rarft.errors import InputError
    from rarft.steps import quarantine_limit as parse

    try:
        parse(text, queries=0)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
