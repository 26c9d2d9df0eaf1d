"""The kinds of jobs, by their names for users."""

from rarft.cluster.job_kind import JobKind
from rarft.cluster.pytorchjob import PYTORCHJOB
from rarft.cluster.trainjob import TRAINJOB

JOB_KINDS: dict[str, JobKind] = {kind.name: kind for kind in (TRAINJOB, PYTORCHJOB)}
