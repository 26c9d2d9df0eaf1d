"""Which refusable query is asked in which epoch, and in which order."""

from collections import Counter

import msgspec
import pytest

from rarft.grpo.curriculum import Curriculum
from rarft.grpo.data import TrainingRows
from rarft.riq.schema import read_samples


@pytest.fixture
def samples(validated):
    """Three items of one answerable and three refusable queries: easy, medium, hard."""
    template = read_samples(str(validated), "data")
    answerable = next(sample for sample in template if sample.task_type == "answerable")
    refusable = next(sample for sample in template if sample.task_type == "refusable")
    made = []
    for item in range(3):
        source = msgspec.structs.replace(answerable.source, item=item)
        made.append(msgspec.structs.replace(answerable, id=f"{item}-true", source=source))
        made += [
            msgspec.structs.replace(refusable, id=f"{item}-{level}", query=level, difficulty=level, source=source)
            for level in ("easy", "medium", "hard")
        ]
    return made


def never(pairs):
    raise AssertionError("labels are there, nothing is to be compared")


def drawn(samples, epoch, seed=0, curriculum=True):
    rows = TrainingRows(samples, "{query}", seed, 4, Curriculum(samples, seed, never) if curriculum else None)
    rows.epoch = epoch
    return rows.samples()


@pytest.mark.parametrize(
    ("epoch", "levels"), [(0, {"easy"}), (1, {"easy", "medium"}), (2, {"easy", "medium", "hard"}), (3, None)]
)
def test_the_easy_first_then_also_medium_then_all(samples, epoch, levels):
    asked = [sample for seed in range(20) for sample in drawn(samples, epoch, seed)]
    found = {sample.difficulty for sample in asked if sample.task_type == "refusable"}
    assert found == (levels or {"easy", "medium", "hard"})
    # As many refusable queries of each item as there are, whichever they are.
    assert Counter(sample.task_type for sample in asked) == {"answerable": 20 * 3, "refusable": 20 * 9}
    assert Counter(sample.source.item for sample in asked) == dict.fromkeys(range(3), 20 * 4)


def test_from_the_third_epoch_on_each_query_is_asked_once(samples):
    assert sorted(sample.id for sample in drawn(samples, 2)) == sorted(sample.id for sample in samples)


def test_the_choice_is_a_function_of_seed_epoch_and_query(samples):
    assert drawn(samples, 1) == drawn(samples, 1)
    assert drawn(samples, 1) != drawn(samples, 1, seed=1)


def test_without_labels_what_resembles_the_truth_least_is_easiest(samples):
    cosine = {"easy": 0.2, "medium": 0.5, "hard": 0.9}
    bare = [msgspec.structs.replace(sample, difficulty=None) for sample in samples]
    curriculum = Curriculum(bare, 0, lambda pairs: [[cosine[query]] for query, _ in pairs])
    for sample in bare:
        if sample.task_type == "refusable":
            assert curriculum.pick(sample, 0).query == "easy"


def test_an_item_without_easy_queries_gives_its_easiest(samples):
    hard = [sample for sample in samples if sample.difficulty != "easy"]
    curriculum = Curriculum(hard, 0, never)
    asked = {curriculum.pick(sample, 0).difficulty for sample in hard if sample.task_type == "refusable"}
    assert asked == {"medium"}


def test_each_epoch_has_an_order_of_its_own_and_the_same_queries(samples):
    first, second = drawn(samples, 0, curriculum=False), drawn(samples, 1, curriculum=False)
    assert first != second
    assert sorted(sample.id for sample in first) == sorted(sample.id for sample in second)


def test_the_order_is_the_same_for_any_number_of_ranks(samples):
    orders = [TrainingRows(samples, "{query}", 0, prompts).samples()[: len(samples)] for prompts in (2, 5, 16)]
    assert orders[0] == orders[1] == orders[2]
