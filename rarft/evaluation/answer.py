"""Answer one query about one video, with a checkpoint on this machine or with a server."""

from dataclasses import asdict, dataclass

from rarft.annotations.schema import Sample, Source
from rarft.answers import Outcome
from rarft.completion import format_segment, parse_completion
from rarft.errors import InputError
from rarft.evaluation.generate import Predictor
from rarft.models.qwen2_5_vl.load import open_checkpoint
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.segments import Segment
from rarft.video.reader import VideoError, probe


@dataclass(frozen=True)
class Answer:
    """A parsed answer.

    Attributes:
        video: Path or URI.
        query: The query.
        outcome: "segment", "refusal" or "unreadable"; None for a completion without an answer.
        segment: Moment of the video in seconds; None for any other outcome.
        reason: Why the query does not fit the video, of a refusal.
        corrected_query: The query, rewritten so that it fits; None without a correction.
        completion: The generated text.
    """

    video: str
    query: str
    outcome: Outcome | None
    segment: Segment | None
    reason: str | None
    corrected_query: str | None
    completion: str

    def to_dict(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)

    def to_text(self) -> str:
        """Return lines for people."""
        if self.segment is not None:
            lines = [f"segment: {format_segment(self.segment)}"]
        elif self.reason is not None:
            lines = [f"refused: {self.reason}"]
        else:
            lines = [f"{self.outcome or 'no'} answer in the completion: {self.completion}"]
        return "\n".join([*lines, *([f"corrected query: {self.corrected_query}"] if self.corrected_query else [])])


def answer(checkpoint: str, video: str, query: str, backend: str, endpoint: str | None) -> Answer:
    """Answer a query; the prompt is that of training.

    Raises:
        InputError: The video, the checkpoint or the server cannot be used.
    """
    try:
        duration = probe(video).duration
    except VideoError as error:
        raise InputError(f"{error}; use another video") from error
    sample = Sample(
        id="query", video=video, query=query, task_type="answerable", segments=[], segment=None, duration=duration,
        crop=None, gt_answer="", contrast_answer=None, reference_queries=[], categories=[], difficulty=None,
        captions=[], source=Source(video, 0, 0), extra={},
    )  # fmt: skip
    with open_checkpoint(checkpoint) as path:
        predictor = Predictor(path, PromptConfig.load(path), backend, [sample], endpoint)
        prediction = predictor.predict([sample])[0]
    if prediction.skipped is not None:
        raise InputError(f"{prediction.skipped}; use another video")
    parsed = parse_completion(prediction.completion)
    reason = parsed.answer if parsed.refuses else None
    return Answer(video, query, parsed.outcome, parsed.segment, reason, parsed.corrected_query, prediction.completion)
