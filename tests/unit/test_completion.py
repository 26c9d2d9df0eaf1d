"""Parsing of completions, and prompt templates."""

import time

import pytest

from rarft.completion import parse_completion, render_completion
from rarft.errors import InputError
from rarft.prompts import fill_prompt, load_prompt_template

WELL_FORMED = "<think>a</think><answer>1 to 2</answer><correction>NIL</correction>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WELL_FORMED, True),
        (f"  \n{WELL_FORMED}\n ", True),
        ("<think>a\nb</think>\n\n<answer>x\ny</answer> <correction>z</correction>", True),
        ("<think></think><answer></answer><correction></correction>", True),
        (WELL_FORMED + WELL_FORMED, False),
        (WELL_FORMED + "<answer>3 to 4</answer>", False),
        ("<think>a</think>b<answer>c</answer><correction>d</correction>", False),
        ("<answer>c</answer><think>a</think><correction>d</correction>", False),
        ("<think>a</think><answer>c</answer>", False),
        ("<think><answer>a</think></answer><correction>d</correction>", False),
        ("", False),
    ],
)
def test_well_formed(text, expected):
    assert parse_completion(text).well_formed is expected


def test_parse_last_answer_first_timestamp():
    text = "<answer>1 to 2</answer><answer>3 to 4, 5 to 6</answer>"
    assert parse_completion(text).segment == (3.0, 4.0)


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("<answer>no such moment</answer>", True),
        ("<answer>5 to 6</answer>", False),
        ("<answer>  </answer>", False),
        ("no such moment", False),
        ("<answer>no such moment", False),
    ],
)
def test_refuses(text, refuses):
    assert parse_completion(text).refuses is refuses


@pytest.mark.parametrize(
    ("correction", "expected"), [("a dog runs", "a dog runs"), ("NIL", None), (" nil ", None), ("", None)]
)
def test_corrected_query(correction, expected):
    assert parse_completion(render_completion("t", "none", correction)).corrected_query == expected


@pytest.mark.parametrize("unit", ["1", "<think>", "<answer>", "1 to ", "</answer>", "12.", " "])
def test_parse_takes_linear_time(unit):
    """A linear scan takes some milliseconds, a quadratic one takes hours."""
    started = time.process_time()
    parse_completion(f"<answer>{unit * (2_000_000 // len(unit))}</answer>")
    assert time.process_time() - started < 20


def test_prompt_templates(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("Where is {query}? {not_ours}")
    filled = fill_prompt(load_prompt_template(str(own)), "a {duration} cat", 9.0)
    assert filled == ("", "Where is a {duration} cat? {not_ours}")
    assert "7.50 seconds" in fill_prompt(load_prompt_template("rarft"), "q", 7.5)[1]
    assert fill_prompt(load_prompt_template("rarft-text-first"), "q", 7.5)[1] == ""
    no_think = load_prompt_template("rarft-no-think")
    assert "<think></think>" in no_think
    assert "<timestep>" not in no_think
    own.write_text("{query} {video} {video}")
    with pytest.raises(InputError, match=r"has several \{video\}"):
        load_prompt_template(str(own))
    own.write_text("nothing to fill")
    with pytest.raises(InputError, match=r"\{query\} is missing"):
        load_prompt_template(str(own))
    with pytest.raises(InputError, match="no such template"):
        load_prompt_template("nope")
