"""`rarft submit`: a run of the compiled pipeline on a Kubeflow Pipelines endpoint."""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.compile import compile_pipeline
from pipelines.endpoint import Endpoint, open_endpoint
from pipelines.kubernetes_values import check_namespace
from pipelines.parameters import check_complete, parse
from pipelines.preflight import check
from pipelines.profiles import DEFAULT_PROFILE
from rarft.errors import ChildFailedError, InputError, input_name
from rarft.storage.location import open_local

_LOCATIONS = ("annotations", "video_root", "eval_annotations", "eval_video_root", "output_uri", "final_uri")


def _read_compiled(path: Path) -> PipelineSpec:
    try:
        document = next(yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
        return json_format.ParseDict(document, PipelineSpec())
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, json_format.ParseError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a compiled pipeline ({reason}); make one with `rarft compile`") from error


def _job_kind(spec: PipelineSpec) -> str:
    """Return the kind of the job that trains on several nodes; empty without one."""
    if "launch-job" not in spec.root.dag.tasks:
        return ""
    kind: str = spec.root.dag.tasks["launch-job"].inputs.parameters["kind"].runtime_value.constant.string_value
    return kind


def _check_locations(values: Mapping[str, Any]) -> None:
    """Check that data and outputs are URIs, or absolute paths, which a mounted volume can have."""
    for name in _LOCATIONS:
        uri = values.get(name, "")
        if uri and not uri.startswith(("s3://", "/")):
            raise InputError(
                f"-p {name}={uri}: a cluster cannot access this machine's files; use an s3:// URI, or a path under "
                "/data with the profile `pvc`"
            )


def submit(
    endpoint: str,
    assignments: Sequence[str],
    pipeline: str | None = None,
    profile: str | None = None,
    experiment: str = "rarft",
    name: str | None = None,
    namespace: str | None = None,
    pipeline_root: str | None = None,
) -> str:
    """Start a run of the pipeline with the options of `rarft submit`; return the run's ID.

    Raises:
        InputError: A parameter or the endpoint is invalid; nothing was started.
        ChildFailedError: The endpoint rejected the run.
    """
    if pipeline is not None and profile is not None:
        raise InputError(f"--profile {profile}: {pipeline} is already compiled; remove --profile or --pipeline")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        if pipeline is None:
            pipeline = f"{folder}/rarft.yaml"
            compile_pipeline(pipeline, profile or DEFAULT_PROFILE)
        with input_name("--pipeline"):
            file = files.enter_context(open_local(pipeline))
            spec = _read_compiled(file)
        values = parse(assignments, spec)
        check_complete(values, spec)
        check(values, _job_kind(spec))
        if namespace is not None:
            with input_name("--namespace"):
                check_namespace(namespace)
        _check_locations(values)
        server = open_endpoint(endpoint)
        server.check()
        return _create_run(
            server,
            namespace,
            pipeline_file=str(file),
            arguments=values,
            run_name=name,
            experiment_name=experiment,
            pipeline_root=pipeline_root,
        )


def _create_run(server: Endpoint, namespace: str | None, **run: Any) -> str:
    import kfp
    import kfp_server_api

    options = {"namespace": namespace} if namespace else {}
    try:
        client = kfp.Client(host=server.url, existing_token=server.token, **options)
        created = client.create_run_from_pipeline_package(namespace=namespace, **run)
    except kfp_server_api.ApiException as error:
        reason = " ".join((error.body or str(error.reason)).split())
        raise ChildFailedError(f"{server.url}: rejected the run: {error.status} {reason}") from error
    if not created.run_id:
        raise ChildFailedError(f"{server.url}: returned no run; is it the Kubeflow Pipelines API?")
    return str(created.run_id)
