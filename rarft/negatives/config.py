"""Settings of a run, and the kinds of the queries that it makes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import yaml

from rarft.errors import InputError
from rarft.negatives.negative import KINDS
from rarft.negatives.requests import ModelOptions
from rarft.negatives.similarity import DUPLICATE

DEFAULT_MIX = "shuffled=1,rules=1"


def parse_mix(text: str) -> dict[str, float]:
    """Return the weight of each kind from a text such as `shuffled=1,rules=2`.

    Raises:
        InputError: A kind is unknown or repeated, a weight is not a non-negative number, or all weights are 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (each.strip() for each in part.partition("="))
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if name not in KINDS or name in weights or not 0 <= weight < math.inf:
            raise InputError(
                f"{text}: {part.strip()!r} is invalid; use KIND=WEIGHT, with {', '.join(KINDS)}, once each"
            )
        weights[name] = weight
    if not any(weights.values()):
        raise InputError(f"{text}: all weights are 0; give at least one kind a positive weight")
    return {kind: weights[kind] for kind in KINDS if weights.get(kind)}


class _Flags(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Flags of `rarft negatives`; those that are not given keep their defaults."""

    per_item: Annotated[int, msgspec.Meta(ge=1)] | None = None
    mix: str | None = None
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    lexicon: str | None = None
    embeddings: str | None = None
    max_similarity: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    url: str | None = None
    model: str | None = None
    cache: str | None = None
    prices: tuple[float, float] | None = None
    max_cost: Annotated[float, msgspec.Meta(gt=0)] | None = None
    requests_per_minute: Annotated[float, msgspec.Meta(gt=0)] | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


def parse_flags(text: str) -> dict[str, Any]:
    """Return the flags in a YAML mapping, whose names may be spelled with `-` or `_`; empty for an empty text.

    Raises:
        InputError: The YAML is invalid, or a flag is unknown or has a wrong type.
    """
    try:
        values = yaml.safe_load(text) if text.strip() else {}
        if not isinstance(values, dict):
            raise ValueError("must be a mapping of flags to values")
        flags = msgspec.convert({str(name).replace("-", "_"): value for name, value in values.items()}, _Flags)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"invalid settings ({' '.join(str(error).split())}); use flags of `rarft negatives`"
        ) from error
    if flags.mix is not None:
        parse_mix(flags.mix)
    return {name: value for name, value in msgspec.structs.asdict(flags).items() if value is not None}


@dataclass(frozen=True)
class NegativeSettings:
    """Settings of a run.

    Attributes:
        per_item: Number of queries to make per answerable item.
        mix: Weight of each kind.
        seed: Random seed.
        duplicate: Similarity from which on a query may mean a moment of the video, in (0, 1].
        model: Settings of the model, if it is in the mix.
    """

    per_item: int = 1
    mix: Mapping[str, float] = field(default_factory=lambda: parse_mix(DEFAULT_MIX))
    seed: int = 0
    duplicate: float = DUPLICATE
    model: ModelOptions | None = None

    def __post_init__(self) -> None:
        if ("model" in self.mix) != (self.model is not None):
            raise InputError("--mix, --url, --model: the kind model requires --url and --model, and only it does")

    def assign_kinds(self, items: int) -> list[dict[str, int]]:
        """Return the number of queries of each kind for each item. The kinds take turns, over all items."""
        credit = dict.fromkeys(self.mix, 0.0)
        total = sum(self.mix.values())
        assigned = []
        for _ in range(items):
            numbers = dict.fromkeys(self.mix, 0)
            for _ in range(self.per_item):
                for kind, weight in self.mix.items():
                    credit[kind] += weight
                kind = max(credit, key=lambda name: credit[name])
                credit[kind] -= total
                numbers[kind] += 1
            assigned.append(numbers)
        return assigned
