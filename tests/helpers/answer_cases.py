"""Answers with their outcome and, for a segment, the first one in seconds."""

SEGMENTS = {
    "12.54 to 17.83": (12.54, 17.83),
    "15 to 45": (15.0, 45.0),
    "The moment is from 1.5  to\n 2 seconds.": (1.5, 2.0),
    "12.5 to 17.5s": (12.5, 17.5),
    "**3 to 4**": (3.0, 4.0),
    "Answer:5 to 10": (5.0, 10.0),
    "The clip shows it.5 to 10": (5.0, 10.0),
    "17.5 to 12.5": (17.5, 12.5),  # reversed
    "4 to 4": (4.0, 4.0),  # empty
    "3 to 4, 5 to 6": (3.0, 4.0),  # several
    "1 to 2 and 8 to 9.5": (1.0, 2.0),
    "<answer>12 to 17": (12.0, 17.0),  # nested
    "12.5s to 17.5s, that is 12.5 to 17.5": (12.5, 17.5),
    "٣ to ٥": (3.0, 5.0),
    "1 to 2 to 3": (1.0, 2.0),
}

UNREADABLE = (
    "12.5s to 17.5s",
    "12.5 - 17.5",
    "12-17",
    "12.5 → 17.5",
    "12.5..17.5",
    "00:12 to 00:17",
    "0:05 to 10:20",
    "12 to 17:30",
    "1:05:10 - 1:06:00",
    "12,5 to 17,5",
    "between 12.5 and 17.5 seconds",
    "The dog runs between 12 and 17 seconds.",
    "The dog runs from 12.5s until 17.5s.",
    "from 12-17 the dog runs",
    "from 12.5 to about 17.5",
    "second 12 to second 17",
    "frames 12 to 50",
    "Minutes 1 to 2",
    "1 to 2 minutes",
    "1 min 5 to 1 min 10",
    "-5 to 10",
    ".5 to 3.5",
    "1.5to 2",
    "12.5 TO 17.5",
    "**12.5** to **17.5**",
    "[12.5, 17.5]",
    "The segment is [12, 17].",
    "12.5 17.5",
    "12.5",
    "at 00:12",
    '{"start": 12, "end": 17}',
    "It starts at 12 and ends at 17.",
    "1e3 to 2e3",
    "1/2 to 3/4",
    "10% - 20%",
    "five to ten",
    "The dog runs from twenty-five to thirty seconds.",
    "1 to " + "2" * 33,
)

REFUSALS = (
    "There is no dog.",
    "There are only 2 people, not 3.",
    "2-3 people are visible, not 5.",
    "Only 2 to 3 people are visible.",
    "Between 2 and 3 people are visible, and none jumps.",
    "The video is 30.5 seconds long and shows no dog.",
    "After 5 seconds the person leaves; there is no cat.",
    "The clock shows 7:30, not 8:15.",
    "Person #1 wears number 23; the score is 3-2, not 21-15.",
    "He lifts 2.5 kg, not 5.0 kg.",
    "A 10-12 year old child sits; nobody jumps.",
    "1,200 to 1,500 people watch, none of them dances.",
    "The person starts with 2 bags and ends with 3.",
    "At 1, 2 and 3 seconds nothing happens.",
    "The query is about 1 of 4 cups in 2019.",
    "The person enters at 00:12, but there is no dog.",
    "Two to three people sit, and the second person does not stand up.",
    "One of the two is missing.",
    "nothing to 5",
    "nan to inf",
    "none",
    "-",
)

BLANK = ("", "  \n")

OUTCOMES = {
    **dict.fromkeys(SEGMENTS, "segment"),
    **dict.fromkeys(UNREADABLE, "unreadable"),
    **dict.fromkeys(REFUSALS, "refusal"),
    **dict.fromkeys(BLANK),
}
