"""The same queries in the form of each published format. A query is (video, text, segment or None, duration)."""

import json
from pathlib import Path


def _lines(values):
    return "".join(json.dumps(value) + "\n" for value in values)


def _by_video(queries):
    videos = {}
    for query in queries:
        videos.setdefault(Path(query[0]).stem, []).append(query)
    return videos


def charades_sta(queries):
    return "".join(f"{Path(video).stem} {start} {end}##{text}\n" for video, text, (start, end), _ in queries)


def charades_durations(queries):
    """Return the CSV file that Charades publishes the durations in."""
    lengths = {Path(video).stem: duration for video, _, _, duration in queries}
    return "id,subject,length\n" + "".join(f"{video},S,{length}\n" for video, length in lengths.items())


def activitynet_captions(queries):
    return json.dumps(
        {
            video: {
                "duration": rows[0][3],
                "timestamps": [list(segment) for _, _, segment, _ in rows],
                "sentences": [text for _, text, _, _ in rows],
            }
            for video, rows in _by_video(queries).items()
        }
    )


def qvhighlights(queries):
    return _lines(
        {
            "qid": number, "query": text, "duration": duration, "vid": Path(video).stem,
            "relevant_windows": [list(segment)] if segment else [],
        }
        for number, (video, text, segment, duration) in enumerate(queries)
    )  # fmt: skip


def ratsg(queries):
    return json.dumps(
        {
            video: {
                "duration": rows[0][3],
                "sts": [
                    {"sentence": text, "id": video, "timestamp": list(segment or []), "no_answer": segment is None}
                    for _, text, segment, _ in rows
                ],
            }
            for video, rows in _by_video(queries).items()
        }
    )


def timelens_bench(queries):
    return json.dumps(
        {
            video: {
                "duration": rows[0][3],
                "spans": [list(segment) for _, _, segment, _ in rows],
                "queries": [text for _, text, _, _ in rows],
            }
            for video, rows in _by_video(queries).items()
        }
    )


def timelens(queries):
    return _lines(
        {
            "video_path": rows[0][0],
            "duration": rows[0][3],
            "events": [{"query": text, "span": [list(segment)]} for _, text, segment, _ in rows],
        }
        for rows in _by_video(queries).values()
    )


def time_r1(queries):
    """Half of the videos have a crop, which times and durations count from."""
    items = []
    for number, (video, text, (start, end), duration) in enumerate(queries):
        crop = [0.25, duration - 0.5] if number % 2 else [None, None]
        shift, length = (crop[0], crop[1] - crop[0]) if number % 2 else (0.0, duration)
        items.append(
            {
                "video": f"./videos/{video}", "duration": length, "timestamp": [start - shift, end - shift],
                "sentence": text, "video_start": crop[0], "video_end": crop[1], "difficulty": 50.0,
            }
        )  # fmt: skip
    return json.dumps(items)


def tvgbench(queries):
    return json.dumps(
        [
            {
                "path": f"./videos/{video}", "question": text, "answer": f"{start}-{end}", "start": None, "end": None,
                "duration": duration, "qsemtype": "Human Pose",
            }
            for video, text, (start, end), duration in queries
        ]
    )  # fmt: skip


def ms_swift(queries):
    return _lines(
        {
            "messages": [
                {"role": "user", "content": f"<video>{text}"},
                {"role": "assistant", "content": f"{segment[0]} to {segment[1]}" if segment else "It is not shown."},
            ],
            "videos": [video],
            "duration": duration,
        }
        for video, text, segment, duration in queries
    )


FORMATS = {
    "charades-sta": charades_sta,
    "activitynet-captions": activitynet_captions,
    "qvhighlights": qvhighlights,
    "ratsg": ratsg,
    "timelens-bench": timelens_bench,
    "timelens": timelens,
    "time-r1": time_r1,
    "tvgbench": tvgbench,
    "ms-swift": ms_swift,
}
WITH_REFUSABLE = {"qvhighlights", "ratsg", "ms-swift"}
