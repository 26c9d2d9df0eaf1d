"""Parser that all commands share: one-line errors, both spellings of a flag, and the options of every command."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from rarft.errors import EXIT_BAD_INPUT, suggest_flag
from rarft.redaction import redact

EPILOG = "Exit codes: 0 success, 1 the work or a requested check failed, 2 bad usage or bad input."
LOG_LEVELS = {"--quiet": "WARNING", "--verbose": "DEBUG"}


class Parser(argparse.ArgumentParser):
    """Parser that reports an error in one line, with the most similar flag if a flag is unknown."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        hint = suggest_flag(message, self._option_string_actions)
        message = re.sub(r"^argument (.+?): ", r"\1: ", " ".join(message.split()))
        print(redact(f"{self.prog}: {message}{hint}; see `{self.prog} --help`"), file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


class Commands:
    """The commands of `rarft`, which are added to the parser of the whole command line."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
        self._common = Parser(add_help=False)
        texts = {"--quiet": "Log warnings and errors only.", "--verbose": "Log debug messages, too."}
        for flag, text in texts.items():
            self._common.add_argument(flag, dest="log_level", action="store_const", const=LOG_LEVELS[flag], help=text)

    def add(self, name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        """Add a command, whose function gets the flags as keyword arguments; return its parser."""
        parser: argparse.ArgumentParser = self._subparsers.add_parser(
            name, help=text, description=text, epilog=EPILOG, parents=[self._common]
        )
        parser.set_defaults(run=run)
        return parser

    @property
    def parsers(self) -> Mapping[str, argparse.ArgumentParser]:
        """Parsers of the commands, by name."""
        return self._subparsers.choices

    def list_only(self, name: str, text: str) -> None:
        """List a command that has its own parser in `rarft --help`."""
        self._subparsers.add_parser(name, help=text, add_help=False)

    def error(self, name: str, message: str) -> NoReturn:
        """Exit with code 2 and a message of the command `name`."""
        self._subparsers.choices[name].error(message)


def spell_flags(arguments: Sequence[str], separator: str) -> list[str]:
    """Spell the words of each flag with one separator, so that `--batch_size` and `--batch-size` are the same."""
    spelled = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and name != "--":
            name = f"--{re.sub('[-_]', separator, name[2:])}"
        spelled.append(f"{name}{equals}{value}")
    return spelled
