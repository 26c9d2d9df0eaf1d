"""Permissions of the launcher: the rules of its Role, and a check whether this account has them."""

from typing import Any

from kubernetes import client

from rarft.cluster.client import call_with_retry
from rarft.cluster.job_kind import JobKind
from rarft.cluster.kinds import JOB_KINDS
from rarft.cluster.kueue import GROUP as KUEUE_GROUP
from rarft.cluster.kueue import WORKLOADS

Rule = dict[str, list[str]]

_SHARED_RULES: tuple[Rule, ...] = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [KUEUE_GROUP], "resources": [WORKLOADS], "verbs": ["list"]},
)


def _job_rule(kind: JobKind) -> Rule:
    return {"apiGroups": [kind.group], "resources": [kind.plural], "verbs": ["create", "delete", "get", "patch"]}


# Rules of the launcher's Role: exactly the calls that it makes.
LAUNCHER_RULES: tuple[Rule, ...] = (*(_job_rule(kind) for kind in JOB_KINDS.values()), *_SHARED_RULES)


# Optional rules: of `rarft doctor`, and of the list of jobs that `rarft cancel` shows.
DOCTOR_RULES: tuple[Rule, ...] = (
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["list"]},
    {"apiGroups": [KUEUE_GROUP], "resources": ["localqueues"], "verbs": ["get"]},
    *({"apiGroups": [kind.group], "resources": [kind.plural], "verbs": ["list"]} for kind in JOB_KINDS.values()),
)
DOCTOR_CLUSTER_RULES: tuple[Rule, ...] = ({"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},)


def rules(kind: JobKind, queued: bool) -> list[Rule]:
    """Return the rules that the launcher needs for a job of a kind, which may be in a queue."""
    shared = [rule for rule in _SHARED_RULES if queued or rule["apiGroups"] != [KUEUE_GROUP]]
    return [_job_rule(kind), *shared]


def missing_permissions(api: client.ApiClient, namespace: str, needed: list[Rule], **options: Any) -> list[str]:
    """Return what this account may not do in a namespace, such as `create pytorchjobs`.

    Args:
        api: Client of the cluster.
        namespace: Namespace of the job.
        needed: Rules to check.
        options: Options of `call_with_retry`.
    """
    review = client.AuthorizationV1Api(api).create_self_subject_access_review
    missing = []
    for rule in needed:
        for resource in rule["resources"]:
            name, _, subresource = resource.partition("/")
            for verb in rule["verbs"]:
                attributes = {"namespace": namespace, "verb": verb, "group": rule["apiGroups"][0], "resource": name}
                body = {"spec": {"resourceAttributes": {**attributes, "subresource": subresource}}}
                if not call_with_retry("check permissions", review, body, **options).status.allowed:
                    missing.append(f"{verb} {resource}")
    return missing
