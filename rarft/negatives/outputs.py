"""Names of the files of a run: next to the data that it writes, and with the name of the data in front."""

SUFFIX = ".jsonl"  # of the data
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
REJECTED_JSONL = "rejected.jsonl"
EMBEDDINGS = "embeddings"


def name_next_to(data: str, name: str) -> str:
    """Return the name of a file of a run, such as `train.report.html` for the data `train.jsonl`.

    Args:
        data: Name, path or URI of the data.
        name: One of the names of this module.
    """
    return f"{data.removesuffix(SUFFIX)}.{name}"
