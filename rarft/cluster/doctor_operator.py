"""Check that an operator runs: a dry run of a job that its webhook must deny, and of one that it must accept.

A dry run stores nothing, and needs no permission that the launcher does not have.
"""

import re
from typing import Any

from kubernetes import client

from rarft.cluster.api_errors import UnknownKindError, api_message, explain
from rarft.cluster.client import call_with_retry
from rarft.cluster.job_config import Job
from rarft.cluster.job_kind import JobKind
from rarft.errors import InputError

_TIMEOUT_S = 5.0
_NAME = "rarft-doctor"
_WEBHOOK_DOWN = "failed calling webhook"


def _invalid(kind: JobKind) -> dict[str, Any]:
    """Return a job that the API server accepts and that the operator's webhook denies."""
    container = {"name": "none", "image": "none"}
    replica = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    specs: dict[str, dict[str, Any]] = {
        "pytorchjob": {"pytorchReplicaSpecs": {"Master": replica}},
        "trainjob": {"runtimeRef": {"name": "none", "kind": "None", "apiGroup": kind.group}},
    }
    return {
        "apiVersion": f"{kind.group}/{kind.version}",
        "kind": kind.kind,
        "metadata": {"name": _NAME},
        "spec": specs[kind.name],
    }


class OperatorCheck:
    """Check of one operator in a namespace."""

    def __init__(self, api: client.ApiClient, namespace: str, kind: JobKind) -> None:
        self._create = client.CustomObjectsApi(api).create_namespaced_custom_object
        self._namespace, self._kind = namespace, kind

    def run(self, image: str | None, gpus: int | None, queue: str | None) -> str:
        """Return what is known about the operator.

        Args:
            image: Image of the job; None for any.
            gpus: Number of GPUs per node; None for none.
            queue: Kueue's local queue; None for none.

        Raises:
            UnknownKindError: The operator is not installed.
            InputError: It does not run, or a job would be denied.
        """
        kind = self._kind
        denial = self._dry_run(_invalid(kind))
        if denial is not None and _WEBHOOK_DOWN in api_message(denial):
            reason = api_message(denial).partition(_WEBHOOK_DOWN)[2].strip(" :")
            raise InputError(f"{kind.operator} is installed and does not run: {reason}; start it")
        if denial is not None and not self._is_from_operator(denial):
            raise explain(f"dry run of a {kind.kind}", denial)
        job = Job(name=_NAME, image=image or "none", arguments=[], gpus=gpus or 0, queue=queue or "")
        if (rejection := self._dry_run(kind.manifest(job))) is not None:
            raise explain(f"dry run of a {kind.kind}", rejection)
        runs = "runs" if denial is not None else "is installed; it has no webhook that shows whether it runs"
        return f"{kind.operator} {runs}; a job would be accepted"

    def _is_from_operator(self, error: client.ApiException) -> bool:
        return re.search(rf'webhook "\S*{self._kind.name}\S*" denied', api_message(error)) is not None

    def _dry_run(self, manifest: dict[str, Any]) -> client.ApiException | None:
        """Return the error of a job's creation; None if it would be created."""
        kind = self._kind
        resource: dict[str, Any] = {"group": kind.group, "version": kind.version, "plural": kind.plural}
        try:
            call_with_retry(
                f"dry run of a {kind.kind}",
                self._create,
                **resource,
                namespace=self._namespace,
                body=manifest,
                dry_run="All",
                field_validation="Strict",
                timeout_s=0.0,
            )
        except client.ApiException as error:
            known = explain(f"dry run of a {kind.kind}", error, f"{kind.operator} is not installed")
            if isinstance(known, UnknownKindError):
                raise known from error
            return error
        return None
