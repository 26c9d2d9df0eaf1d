"""Invalid annotations with the outcomes of their queries and the codes of their findings."""

from helpers.riq_items import ANSWERABLE, REFUSABLE, item, query

# name: (item, outcomes of its answerable and its refusable query, codes)
# A accepted, R repaired, Q quarantined
CASES = {
    "no duration": (item(duration=None), "AA", ["RIQ110"]),
    "ends after the video within the tolerance": (item(timestamp=[1.0, 10.9]), "RA", ["RIQ102"]),
    "ends after the video": (item(timestamp=[1.0, 36.5]), "QA", ["RIQ101"]),
    "starts after the video": (item(timestamp=[10.1, 10.5]), "QA", ["RIQ101"]),
    "no segment": (item(timestamp=[]), "QA", ["RIQ104"]),
    "answer blank": (item(GRPO=[query(ANSWERABLE, a=""), REFUSABLE]), "RA", ["RIQ303"]),
    "answer missing": (item(GRPO=[query(ANSWERABLE, a=...), REFUSABLE]), "RA", ["RIQ303"]),
    "answer untagged": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="no cat")]), "AR", ["RIQ304"]),
    "correct tag": (
        item(GRPO=[ANSWERABLE, query(REFUSABLE, a="<answer>no</answer><correct>a dog runs</correct>")]),
        "AR",
        ["RIQ305"],
    ),
    "answer rounded": (item(timestamp=[1.04, 4.04]), "AA", ["RIQ306"]),
    "answer of another segment": (item(timestamp=[5.0, 9.0]), "AA", ["RIQ310"]),
    "answer without a segment": (
        item(GRPO=[query(ANSWERABLE, a="<answer>yes</answer>"), REFUSABLE]),
        "AA",
        ["RIQ310"],
    ),
    "special token": (item(GRPO=[ANSWERABLE, query(REFUSABLE, q="a <|video_pad|> runs")]), "AQ", ["RIQ309"]),
    "lone surrogate": (item(note="\ud800"), "QQ", ["RIQ012", "RIQ012"]),
    "NaN in an extra field": (item(score=float("nan")), "AA", ["RIQ013"]),
    "query_text with white space": (item(query_text=" a dog runs "), "AA", []),
    "refusal blank": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="<answer> </answer>")]), "AQ", ["RIQ302"]),
    "reversed segment": (item(timestamp=[4.0, 1.0]), "QA", ["RIQ103"]),
    "empty segment": (item(timestamp=[4.0, 4.0]), "QA", ["RIQ103"]),
    "negative segment": (item(timestamp=[-1.0, 4.0]), "QA", ["RIQ106"]),
    "NaN in the segment": (item(timestamp=[float("nan"), 4.0]), "QA", ["RIQ105"]),
    "segment of three numbers": (item(timestamp=[1, 2, 3]), "QA", ["RIQ105"]),
    "segment of words": (item(timestamp="soon"), "QA", ["RIQ105"]),
    "numbers written as strings": (item(timestamp=["1.0", "4.0"], duration="10"), "AA", []),
    "negative duration": (item(duration=-3), "AA", ["RIQ110", "RIQ111"]),
    "reversed crop": (item(video_start=5, video_end=2), "AA", ["RIQ113"]),
    "no video": (item(video=None), "QQ", ["RIQ011", "RIQ308"]),
    "query is a number": (item(GRPO=[query(ANSWERABLE, q=7), REFUSABLE]), "QA", ["RIQ011", "RIQ308"]),
    "query missing": (item(GRPO=[query(ANSWERABLE, q=...), REFUSABLE]), "QA", ["RIQ011", "RIQ308"]),
    "no reference queries": (
        item(GRPO=[REFUSABLE, query(REFUSABLE, q="a cow runs")]),
        "AA",
        ["RIQ308", "RIQ308", "RIQ404"],
    ),
    "refusal with a timestamp": (
        item(GRPO=[ANSWERABLE, query(REFUSABLE, a="<answer>not 1 to 4</answer>")]),
        "AA",
        ["RIQ307"],
    ),
    "refusable query equals an answerable one": (
        item(GRPO=[ANSWERABLE, query(REFUSABLE, q="A dog  runs.")]),
        "AQ",
        ["RIQ503"],
    ),
    "difficulty of another name": (item(GRPO=[ANSWERABLE, query(REFUSABLE, difficulty="strong")]), "AA", ["RIQ403"]),
    "segment outside the crop": (item(video_start=2.0), "AA", ["RIQ114"]),
    "query blank": (item(GRPO=[ANSWERABLE, query(REFUSABLE, q=" ")]), "AQ", ["RIQ301"]),
    "r missing": (item(GRPO=[ANSWERABLE, query(REFUSABLE, r=...)]), "AQ", ["RIQ011"]),
    "r written as a word": (item(GRPO=[query(ANSWERABLE, r="true"), query(REFUSABLE, r=0)]), "AA", []),
    "query is not an object": (item(GRPO=[ANSWERABLE, "what?"]), "AQ", ["RIQ011"]),
    "unknown category": (item(GRPO=[ANSWERABLE, query(REFUSABLE, c=["Sound/Loud"])]), "AA", ["RIQ401"]),
    "unknown difficulty": (item(GRPO=[ANSWERABLE, query(REFUSABLE, difficulty="evil")]), "AA", ["RIQ402"]),
    "duplicate in an item": (item(GRPO=[ANSWERABLE, ANSWERABLE]), "AQ", ["RIQ107", "RIQ404"]),
    "answerable and refusable": (
        item(GRPO=[ANSWERABLE, query(REFUSABLE, q="a dog runs")]),
        "QQ",
        ["RIQ502", "RIQ502"],
    ),
}
