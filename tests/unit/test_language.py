# ruff: noqa: SIM905
"""The vocabulary: standard names in the code, plain English in code, messages and documentation."""

import ast
import functools
import io
import re
import subprocess
import tokenize

import pytest

from helpers.paths import ROOT

# Identifiers that have a standard term instead. Definitions are checked: functions, classes, arguments, variables.
NAMES = """
Judged Surroundings Survey Ledger Checked BrokenLine Remembered Parcel Uploads Place _Places Ending Asked
ReadingSettings
PromptReader TrainingRows SaveAtBoundaries CompleteCheckpoints ProgressLine TrainingLog Epochs OwnStepCounts
NewRandomNumbers Seconds DataRefusedError ElsewhereError NotThereError IncompleteError _UnparsableError Response
what most least place where beside here there meet _meetings from_main from_all leads_node die_with_launcher patiently
denied _PASSES _AWAY own_namespace _PATIENCE patience _LOOK_EVERY _LOOK _LOOK_AFTER _GONE_WITHIN _END_WITHIN
_SAVE_WITHIN SEAMS check_seams GUIDE_METRICS _MENDS _told told deed _lasting STARTER_TELLS reported _leave left_cause
told_to_stop _stop fault faults gates_of beside_base how refuses_rightly said_relevant badness kind_of identity
whole_identity _WITHOUT_EFFECT _forget_the_end _send_the_end _send_files_of_the_end _leave_nothing _claim held
_fit_to_ranks fitting sweep set_aside complete _complete_together _complete_apart finish send_folder member fetched
fetched_files exclusive whole_batches stratified trainable lay_out lay_out_scene without_video accept_features
with_features logits_are_few score_completions_only warm_up_flat_down careless answered trackers asked mend mends
refuses_a_truth may_repeat contradicts shown tagged folded probed_ahead _look_at of_file of_folder together
_HANDED_ON keep train_by_job _hand_over first_of_the_last _ON_THE_WAY _BURST_S claim processes_a_node third_content
third ROOMS room_of TROUBLES fates play acts around surroundings sightings
""".split()
# Names that are wrong only in one folder.
LOCAL_NAMES = {"components": {"content", "videos"}, "pipelines": {"content"}}
FILES = """
rarft/riq rarft/references rarft/grpo rarft/qwen rarft/cold_start surroundings.py survey.py second_pass.py ledger.py
reading.py remembered.py mirror.py objects.py processes.py arguments.py samples.py tower.py response.py ahead.py
batches.py checkpoint_names.py positions.py nodes.py space.py universal.py uploads.py skipped.py timing.py curves.py
facts.py shares.py examples.py predict.py sightings.py settings.py api.py figures.py pipelines/checks.py runners.py
kills.py saving.py transfer.py schema.py echo.py warm.py test_pages.py test_reading.py
""".split()
FILES_ALLOWED = {"rarft/annotations/schema.py"}
UNITS = "line|GPU|step|node|machine|component|second|token|row|query|video|process|rank|minute|batch"  # R2: one a line
PHRASES = {
    "R1 'is no X'": r"(?<!there )(?<!There )\b(is|are) no (?!longer\b|more than)",
    "R2 'one a line'": r"\b(one|process|seconds|steps|rank|file|line|page|bytes|tokens|cents|queries)"
    rf" an? ({UNITS})\b",
    "R3 'is told', 'tells', 'says'": r"\b(is|are|was|were|be|been|as) told\b|\btells?\b|\bsays?\b|\bsaid\b",
    "R4 'goes on', 'begins anew'": r"\b(go|goes|going|gone|went) on\b|\banew\b",
    "R5 'lies', 'stands', 'is there'": r"\b(lies|lie|lying|stands|standing)\b|\b(is|are) there[.,;:)]",
    "R6 'held against'": r"\b(hold|holds|held|holding) (\w+ ){0,4}against\b",
    "R7 'complete or not there'": r"\b(complete|whole|finished) or not there\b",
    "R8 'beside', 'mend'": r"\b(beside|likewise|in (the )?place of|mend|mends|mended|mending|heed|heeds|reckons?"
    r"|reckoned|hands? on|handed on|handing on|of (its|their|his|her|one's|your) own)\b",
    "R11 metaphors": r"\b(house|rooms? of|newcomer|carry on|carries on|oracle)\b",
}


@functools.cache
def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if (ROOT / name).is_file()]


@functools.cache
def allowed():
    """Pairs of a file and a piece of its text that may stay."""
    lines = (ROOT / "tests" / "unit" / "language_allowed.txt").read_text().splitlines()
    return [tuple(line.split(": ", 1)) for line in lines if line and not line.startswith("#")]


def definitions(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


@functools.cache
def prose(name):
    """Lines of text in a file with their numbers: comments and strings of Python, everything else whole."""
    text = (ROOT / name).read_text()
    if not name.endswith(".py"):
        return list(enumerate(text.splitlines(), 1))
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in kinds
        for line in enumerate(token.string.splitlines(), token.start[0])
    ]


@pytest.mark.parametrize("folder", ["rarft", "components", "pipelines", "benchmarks", "tests"])
def test_identifiers_are_standard_terms(folder):
    wrong = set(NAMES) | LOCAL_NAMES.get(folder, set())
    found = [
        f"{name}:{line}: {identifier}"
        for name in tracked(f"{folder}/*.py")
        for identifier, line in definitions(ast.parse((ROOT / name).read_text()))
        if identifier in wrong and (name, identifier) not in allowed()
    ]
    assert found == []


def test_file_names_are_standard_terms():
    found = [
        name
        for name in tracked("*.py")
        if any(f"/{name}".endswith(f"/{old}") or name.startswith(f"{old}/") for old in FILES)
    ]
    assert set(found) <= FILES_ALLOWED


def test_docstrings_start_with_a_term():
    """R10: a verb for a function, a noun phrase for a module or class."""
    found = []
    for name in tracked("*.py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                if re.match(r"(What|Whether|Where|How|Of|That|Who)\b", docstring):
                    found.append(f"{name}: {docstring.splitlines()[0]}")
    assert found == []


@pytest.mark.parametrize("rule", PHRASES)
def test_prose_is_plain_english(rule):
    pattern = re.compile(PHRASES[rule])
    names = tracked("*.py", "*.md", "*.yaml", "*.yml", "*.toml", "*.sh", "Makefile", "docker/*", "*.j2")
    skipped = {"tests/unit/test_language.py", "docs/training_guide.md"}
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in sorted(set(names) - skipped)
        if not name.startswith("docker/locks/")
        for number, line in prose(name)
        if pattern.search(line) and not any(name == file and piece in line for file, piece in allowed())
    ]
    assert found == []
