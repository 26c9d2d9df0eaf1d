"""Properties of validation for any content of a file: no query is lost, and nothing crashes."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.riq_items import item
from rarft.annotations.schema import iterate_samples
from rarft.annotations.validate import ValidationSettings, validate
from rarft.errors import InputError, one_line
from rarft.storage.location import LocalFolder

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4),
    max_leaves=8,
)
KEYS = ["video", "query_text", "timestamp", "duration", "video_start", "video_end", "think", "difficulty", "GRPO"]
QUERY_KEYS = ["q", "a", "r", "c", "difficulty", "hardness_level"]


@st.composite
def mutated_items(draw):
    """A valid item of which some fields are replaced by any value or removed."""
    mutated = json.loads(json.dumps(item()))
    for _ in range(draw(st.integers(0, 3))):
        target, keys = draw(st.sampled_from([(mutated, KEYS), *((one, QUERY_KEYS) for one in mutated["GRPO"])]))
        key = draw(st.sampled_from(keys))
        if key == "GRPO" and target is mutated and draw(st.booleans()):
            continue
        value = draw(json_values)
        target.pop(key, None) if draw(st.booleans()) else target.__setitem__(key, value)
        if not isinstance(mutated.get("GRPO"), list) or not all(isinstance(one, dict) for one in mutated["GRPO"]):
            break
    return mutated


def count_queries(value):
    is_item = isinstance(value, dict) and isinstance(value.get("GRPO"), list) and value["GRPO"]
    return len(value["GRPO"]) if is_item else 1


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutated_items() | json_values, min_size=1, max_size=4))
def test_no_query_is_lost(validate_items, tmp_path, items):
    report, rows, quarantine = validate_items(json.dumps(items))
    assert len(list(iterate_samples(tmp_path / "out" / "riq.jsonl"))) == len(rows)
    assert report["counts"]["items"] == len(items)
    assert report["counts"]["queries"] == sum(map(count_queries, items))
    assert all(any(finding["severity"] == "error" for finding in row["_findings"]) for row in quarantine)
    assert len({row["id"] for row in rows}) == len(rows)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutated_items(), min_size=1, max_size=4))
def test_revalidation_changes_nothing(validate_items, tmp_path, items):
    report, _, _ = validate_items(json.dumps(items))
    if report["counts"]["accepted"] + report["counts"]["repaired"] == 0:
        return
    first = (tmp_path / "out" / "riq.jsonl").read_bytes()
    again = validate(tmp_path / "out" / "riq.jsonl", LocalFolder(tmp_path / "again"), None, ValidationSettings())
    assert again["counts"]["quarantined"] == again["counts"]["repaired"] == 0
    assert (tmp_path / "again" / "riq.jsonl").read_bytes() == first


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_report_or_one_line(tmp_path, content):
    (tmp_path / "in.json").write_bytes(content)
    try:
        report = validate(tmp_path / "in.json", LocalFolder(tmp_path / "out"), None, ValidationSettings())
    except InputError as error:
        message = one_line(error)
        report = None
    if report is None:
        assert str(tmp_path / "in.json") in message
        return
    counts = report["counts"]
    assert counts["accepted"] + counts["repaired"] + counts["quarantined"] == counts["queries"]
