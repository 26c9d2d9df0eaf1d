"""Word swaps: inflection, contexts, balance, and the words of the reason."""

from collections import Counter

import pytest

from rarft.annotations.schema import CATEGORIES
from rarft.errors import InputError
from rarft.negatives.contexts import Contexts
from rarft.negatives.english import article, conjugate, plural, stem, tokenize
from rarft.negatives.lexicon import packaged_lexicon, parse_lexicon
from rarft.negatives.rules import RuleMaker, apply_swaps, find_swaps

LEXICON = """
groups:
  vessels: {category: Object/ObjectExistence, part: noun, words: [[cup, glass], bottle, umbrella]}
  drinks: {category: Object/ObjectExistence, part: mass, words: [water, milk]}
  placing:
    category: Action/FineGrainedAction
    part: verb
    words: [put, throw, take]
    next: determiner
    never: [[put, take]]
    new_only: [throw]
  colors: {category: Attribute/AttributeValue, part: adjective, words: [red, orange]}
  numbers: {category: Attribute/Counting, part: number, words: [two, three]}
  sides: {category: Object/ObjectSpatialRelation, part: phrase, words: [to the left, to the right]}
  doors: {category: Object/ObjectExistence, part: noun, unless: [glass door], words: [door, gate]}
irregular_verbs: {put: [put, put], throw: [threw, thrown], take: [took, taken]}
"""


@pytest.fixture
def lexicon():
    return parse_lexicon(LEXICON, "lexicon.yaml")


def swapped(text, lexicon):
    tokens = tokenize(text)
    swaps = find_swaps([token.word for token in tokens], lexicon, Contexts(lexicon))
    return {apply_swaps(text, tokens, [swap]) for swap in swaps}


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("walk", ("walks", "walking", "walked", "walked")),
        ("wash", ("washes", "washing", "washed", "washed")),
        ("close", ("closes", "closing", "closed", "closed")),
        ("stop", ("stops", "stopping", "stopped", "stopped")),
        ("fix", ("fixes", "fixing", "fixed", "fixed")),
        ("play", ("plays", "playing", "played", "played")),
        ("carry", ("carries", "carrying", "carried", "carried")),
        ("die", ("dies", "dying", "died", "died")),
        ("open", ("opens", "opening", "opened", "opened")),
        ("turn on", ("turns on", "turning on", "turned on", "turned on")),
        ("throw", ("throws", "throwing", "threw", "thrown")),
    ],
)
def test_conjugate(verb, forms):
    irregular = {"throw": ("threw", "thrown")}
    assert tuple(conjugate(verb, irregular).values())[1:] == forms


def test_plural_article_and_stem():
    nouns = ["box", "dish", "living room", "cherry", "toy", "shelf"]
    assert [plural(noun, {"shelf": "shelves"}) for noun in nouns] == [
        "boxes", "dishes", "living rooms", "cherries", "toys", "shelves"
    ]  # fmt: skip
    assert [article(word) for word in ("apple", "hour", "unicorn", "bottle")] == ["an", "an", "a", "a"]
    assert len({stem(word) for word in ("jump", "jumps", "jumping", "jumped")}) == 1
    assert len({stem(word) for word in ("hop", "hops", "hopping", "hopped")}) == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Person puts the cups away.", {"Person puts the bottles away.", "Person puts the umbrellas away.",
                                        "Person throws the cups away."}),
        ("a cup of water.", {"a bottle of water.", "an umbrella of water.", "a cup of milk."}),
        ("person has taken some cup", {"person has thrown some cup", "person has taken some bottle",
                                       "person has taken some umbrella"}),
        ("an orange cup on it", {"a red cup on it", "an orange bottle on it", "an orange umbrella on it"}),
        ("two people turn to the left", {"three people turn to the left", "two people turn to the right"}),
        ("a glass door", set()),  # a compound, and `unless`
        ("person puts on shoes", set()),  # `next`
        ("person throws it", set()),  # `new_only`
        ("the water bottle", set()),
        ("one of two", set()),
        ("turn to the", set()),  # the beginning of a phrase
        ("", set()),
    ],
)  # fmt: skip
def test_swaps(query, expected, lexicon):
    assert swapped(query, lexicon) == expected


def test_swap_names_nothing_that_the_video_shows(lexicon):
    queries = ["the cup is red", "the bottle is red", "the umbrella is orange"] * 5
    maker = RuleMaker(queries, lexicon, seed=0)
    words = lexicon.text_words("a person holds two glasses and umbrellas")
    made = [maker.make("a cup.", words, set(), number) for number in range(5)]
    assert {negative.query for negative in made if negative} == {"a bottle."}
    assert maker.make("the umbrella", words | lexicon.text_words("cups, bottles"), set(), 9) is None
    assert maker.make("a cup.", words, {"a bottle"}, 10) is None
    first = made[0]
    assert first.reason == 'No moment matches the query: the video shows "a cup", with "cup" instead of "bottle".'
    assert (first.difficulty, first.categories) == ("hard", ["Object/ObjectExistence"])
    assert first.detail == {"swaps": [["cup", "bottle"]]}


def test_swaps_are_balanced(lexicon):
    """No word is inserted or removed more often than 0.3 of its occurrences, and no word is new to the data."""
    queries = ["person puts the cup down"] * 80 + ["person puts the bottle down"] * 20
    maker = RuleMaker(queries, lexicon, seed=1)
    made = [
        negative
        for number, query in enumerate(queries)
        if (negative := maker.make(query, lexicon.text_words(query), set(), number))
    ]
    before = Counter(token.word for query in queries for token in tokenize(query))
    inserted = Counter(new for negative in made for _, new in negative.detail["swaps"])
    removed = Counter(old for negative in made for old, _ in negative.detail["swaps"])
    assert made
    assert set(inserted) <= set(before)
    for word in before:
        assert abs(inserted[word] - removed[word]) <= max(1, 0.3 * before[word])


def test_content_words_ignore_form_and_synonyms():
    lexicon = packaged_lexicon()
    assert lexicon.text_words("A person is sitting on the sofas") == lexicon.text_words("someone sat on a couch")
    assert lexicon.text_words("living room") != lexicon.text_words("dining room")
    assert lexicon.text_words("a person, the other one") == set()


def test_packaged_lexicon_covers_categories():
    groups = packaged_lexicon().groups.values()
    assert {group.category for group in groups} <= CATEGORIES
    assert len({group.category for group in groups}) >= 7


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("groups: {}", "contains no groups"),
        ("[", "not a valid lexicon"),
        ("groups: {a: {category: Sound/Loud, part: noun, words: [x, y]}}", "unknown category Sound/Loud"),
        ("groups: {a: {category: Attribute/Counting, part: noun, words: [x]}}", "length >= 2"),
        ("groups: {a: {category: Attribute/Counting, part: noun, words: [x, Y]}}", "lowercase"),
        ("groups: {a: {category: Attribute/Counting, part: noun, words: [x, x]}}", "repeated"),
        (
            "groups: {a: {category: Attribute/Counting, part: noun, words: [x, y], never: [[x, z]]}}",
            "z is not the first",
        ),
        ("groups: {a: {category: Attribute/Counting, part: noun, words: [x, y], color: z}}", "unknown field"),
    ],
)
def test_lexicon_rejects_mistakes(text, problem):
    with pytest.raises(InputError, match=r"^mine\.yaml: not a valid lexicon") as error:
        parse_lexicon(text, "mine.yaml")
    assert problem in str(error.value)


def test_lexicon_reads_yaml_booleans_as_words():
    lexicon = parse_lexicon(
        "groups: {a: {category: Object/ObjectSpatialRelation, part: phrase, words: [on, off, no]}}", "x"
    )
    assert ("on",) in lexicon.forms
