"""The queries that an epoch asks, and their order."""

from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from rarft.annotations.schema import read_samples
from rarft.training.curriculum import Curriculum
from rarft.training.data import TrainingDataset, apply_multi_segment, draw, make_pools

LEVELS = ("easy", "medium", "hard")


@pytest.fixture(scope="module")
def make_item(validated):
    """Make the samples of one item from its queries; the text of a refusable query is also its difficulty."""
    template = {sample.task_type: sample for sample in read_samples(str(validated))}

    def make(item, answerable=("true",), refusable=LEVELS):
        queries = [("answerable", query) for query in answerable] + [("refusable", query) for query in refusable]
        return [
            msgspec.structs.replace(
                template[kind],
                id=f"{item}-{query}",
                query=query,
                difficulty=query if query in LEVELS else None,
                source=msgspec.structs.replace(template[kind].source, item=item, query=number),
            )
            for number, (kind, query) in enumerate(queries)
        ]

    return make


@pytest.fixture(scope="module")
def samples(make_item):
    """Three items of one answerable and three refusable queries: easy, medium, hard."""
    return [sample for item in range(3) for sample in make_item(item)]


def no_similarities(pairs):
    raise AssertionError("difficulty labels exist, so nothing must be compared")


def draw_epoch(samples, epoch=0, seed=0, queries_per_item="pair", refusable_pool=None, curriculum=None, prompts=1):
    pools = make_pools(samples, queries_per_item, refusable_pool)
    rows = TrainingDataset(pools, "{query}", seed, prompts, Curriculum(pools, curriculum) if curriculum else None)
    rows.epoch = epoch
    return rows.samples()


def refusable(samples):
    return [sample for sample in samples if sample.task_type == "refusable"]


def chi_square(counts):
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_pair_asks_one_query_of_each_type(samples):
    for epoch in range(5):
        queries = Counter((sample.source.item, sample.task_type) for sample in draw_epoch(samples, epoch))
        assert queries == {(item, kind): 1 for item in range(3) for kind in ("answerable", "refusable")}


def test_pair_of_incomplete_items(make_item):
    """An item with one task type gives one row; of several answerable queries one is drawn."""
    samples = [*make_item(0, answerable=()), *make_item(1, refusable=()), *make_item(2, answerable=("a", "b"))]
    seen = set()
    for epoch in range(50):
        queries = draw_epoch(samples, epoch)
        kinds = sorted((sample.source.item, sample.task_type) for sample in queries)
        assert kinds == [(0, "refusable"), (1, "answerable"), (2, "answerable"), (2, "refusable")]
        seen |= {sample.id for sample in queries}
    assert seen == {sample.id for sample in samples}


def test_all_asks_every_query_once(samples):
    for epoch in range(3):
        queries = draw_epoch(samples, epoch, queries_per_item="all")
        assert sorted(sample.id for sample in queries) == sorted(sample.id for sample in samples)


def test_pair_equals_all_for_items_of_two_queries(validated):
    """Synthetic items have one query of each type, so the setting makes no difference."""
    samples = read_samples(str(validated))
    for epoch in range(3):
        assert draw_epoch(samples, epoch) == draw_epoch(samples, epoch, queries_per_item="all")


def test_draw_is_uniform_and_independent(samples):
    """Chi-square test at the 0.1 % level, over epochs, seeds, pairs of items and pairs of consecutive epochs."""
    pools = [pool for pool in make_pools(samples, "pair", None) if pool[0].task_type == "refusable"]
    epochs = [[draw(pool, 0, epoch).query for pool in pools] for epoch in range(3000)]
    seeds = [draw(pools[0], seed, 0).query for seed in range(3000)]
    for queries in (*zip(*epochs, strict=True), seeds):
        assert chi_square([queries.count(level) for level in LEVELS]) < 13.8  # 2 degrees of freedom
    first = [queries[0] for queries in epochs]
    for pairs in (Counter((queries[0], queries[1]) for queries in epochs), Counter(pairwise(first))):
        assert chi_square([pairs[one, two] for one in LEVELS for two in LEVELS]) < 26.1  # 8 degrees of freedom


def test_draw_is_independent_of_other_items(samples, make_item):
    def draw_first_item(data, epoch):
        return sorted(sample.id for sample in draw_epoch(data, epoch) if sample.source.item == 0)

    for epoch in range(20):
        expected = draw_first_item(samples, epoch)
        assert draw_first_item(samples[:4], epoch) == expected
        assert draw_first_item([*make_item(9), *reversed(samples)], epoch) == expected


def test_rows_do_not_depend_on_resume_or_ranks(samples):
    rows = TrainingDataset(make_pools(samples, "pair", None), "{query}", 0, 1)
    for epoch in range(6):
        rows.epoch = epoch
        uninterrupted = rows.samples()
        for prompts in (1, 2, 5, 16):
            assert draw_epoch(samples, epoch, prompts=prompts)[: len(uninterrupted)] == uninterrupted
    assert draw_epoch(samples, 5, seed=1) != uninterrupted


def test_order_differs_by_epoch(samples):
    first, second = (draw_epoch(samples, epoch, queries_per_item="all") for epoch in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("skip", [1, 0]), ("first", [1, 1, 0]), ("union", [1, 2, 0])],
)
def test_multi_segment(make_item, policy, expected):
    one, refusable = make_item(0, refusable=("easy",))
    several = msgspec.structs.replace(one, segments=[(1.0, 2.0), (4.0, 5.0)], segment=None, gt_answer="both")
    kept = apply_multi_segment([one, several, refusable], policy)
    assert [len(sample.segments) for sample in kept] == expected
    assert kept[0] == one
    if policy == "first":
        assert (kept[1].segment, kept[1].gt_answer) == ((1.0, 2.0), "1.00 to 2.00")


def test_refusable_pool_is_first_queries(make_item):
    samples = make_item(0, refusable=("a", "b", "c", "d", "e"))
    for data in (samples, samples[::-1]):
        queries = {
            sample.query for epoch in range(50) for sample in refusable(draw_epoch(data, epoch, refusable_pool=3))
        }
        assert queries == {"a", "b", "c"}
    assert {sample.query for epoch in range(50) for sample in refusable(draw_epoch(samples, epoch))} == set("abcde")


def test_all_samples(make_item):
    """They are the samples that some epoch draws, whose prompt lengths are checked."""
    samples = make_item(0, answerable=("x", "y"), refusable=("a", "b", "c", "d"))
    rows = TrainingDataset(make_pools(samples, "pair", 3), "{query}", 0, 1)
    queries = set()
    for epoch in range(100):
        rows.epoch = epoch
        queries |= {sample.id for sample in rows.samples()}
    assert queries == {sample.id for sample in rows.all_samples}


@pytest.mark.parametrize(
    ("epoch", "levels"), [(0, {"easy"}), (1, {"easy", "medium"}), (2, set(LEVELS)), (3, set(LEVELS))]
)
def test_curriculum_levels(samples, epoch, levels):
    queries = [sample for seed in range(20) for sample in draw_epoch(samples, epoch, seed, curriculum=no_similarities)]
    assert {sample.difficulty for sample in refusable(queries)} == levels
    assert Counter(sample.task_type for sample in queries) == {"answerable": 20 * 3, "refusable": 20 * 3}


def test_curriculum_only_filters(samples):
    """Once it admits every query, the same queries are drawn as without it."""
    for epoch in range(2, 10):
        assert draw_epoch(samples, epoch, curriculum=no_similarities) == draw_epoch(samples, epoch)


def test_curriculum_without_labels(samples):
    """The query that is least similar to the true one is the easiest."""
    cosine = {"easy": 0.2, "medium": 0.5, "hard": 0.9}
    bare = [msgspec.structs.replace(sample, difficulty=None) for sample in samples]
    for seed in range(20):
        queries = draw_epoch(bare, 0, seed, curriculum=lambda pairs: [[cosine[query]] for query, _ in pairs])
        assert {sample.query for sample in refusable(queries)} == {"easy"}


def test_curriculum_without_easy_queries(make_item):
    samples = make_item(0, refusable=("hard", "medium"))
    queries = {
        sample.query
        for seed in range(20)
        for sample in refusable(draw_epoch(samples, 0, seed, curriculum=no_similarities))
    }
    assert queries == {"medium"}


def test_curriculum_and_refusable_pool(make_item):
    """The curriculum sees the first queries only."""
    samples = make_item(0, refusable=("hard", "medium", "easy"))
    for epoch, expected in ((0, {"medium"}), (2, {"medium", "hard"})):
        queries = [
            draw_epoch(samples, epoch, seed, refusable_pool=2, curriculum=no_similarities) for seed in range(20)
        ]
        assert {sample.query for each in queries for sample in refusable(each)} == expected


def test_summary(samples):
    rows = TrainingDataset(make_pools(samples, "pair", None), "{query}", 0, 4)
    assert rows.summary() == ("3 items, 6 prompts per epoch, 50% refusable; 2 prompts repeated to fill the last batch")
    rows = TrainingDataset(make_pools(samples, "all", None), "{query}", 0, 4)
    assert rows.summary() == "3 items, 12 prompts per epoch, 75% refusable"


@pytest.mark.parametrize("flags", [("--curriculum", "true"), ("--refusable_pool", "3")])
def test_settings_that_select_need_pair(main, validated, flags):
    code, _, error = main(
        "train", "--preset", "tiny", "--train_data_path", validated, "--queries_per_item", "all", *flags
    )
    assert code == 2
    assert f"{flags[0]} {flags[1].capitalize()}: selects queries to draw from" in error
