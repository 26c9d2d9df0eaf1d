"""`rarft submit`: a run of the compiled pipeline on a Kubeflow Pipelines endpoint."""

import contextlib
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.compile import compile_pipeline
from pipelines.parameters import check_complete, parse
from pipelines.preflight import check
from pipelines.profiles import DEFAULT_PROFILE
from rarft.environment import read_variable
from rarft.errors import ChildFailedError, InputError, input_name
from rarft.storage.location import open_local

TOKEN_ENV = "KFP_TOKEN"
_TIMEOUT_S = 20.0  # for the health check
_LOCATIONS = ("annotations", "video_root", "eval_annotations", "eval_video_root", "output_uri", "final_uri")


def _read_compiled(path: Path) -> PipelineSpec:
    try:
        document = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        return json_format.ParseDict(document, PipelineSpec())
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, json_format.ParseError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a compiled pipeline ({reason}); make one with `rarft compile`") from error


def _check_endpoint(endpoint: str, token: str | None) -> None:
    """Check that there is a Kubeflow Pipelines API, before anything is created there."""
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"{endpoint}: not a URL; use a form such as http://localhost:8888")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/apis/v2beta1/healthz", headers=headers)
    hint = "is it the Kubeflow Pipelines API, and not a login page?"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        hint = f"set {TOKEN_ENV}" if error.code in (401, 403) else hint
        raise InputError(f"{endpoint}: returned {error.code} {error.reason}; {hint}") from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"{endpoint}: cannot be reached ({reason}); check the URL and the network") from error
    try:
        is_healthy = isinstance(json.loads(body), dict)
    except ValueError:
        is_healthy = False
    if not is_healthy:
        raise InputError(f"{endpoint}: unexpected health-check response; {hint}")


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
    """Start a run of the pipeline with the options of `rarft submit`; return the URL of the run's page.

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
        check(values, launches_job="launch-job" in spec.root.dag.tasks)
        _check_locations(values)
        token = read_variable(TOKEN_ENV, prefix="Bearer ")
        with input_name("--endpoint"):
            _check_endpoint(endpoint, token)
        return _create_run(
            {"host": endpoint, "existing_token": token, **({"namespace": namespace} if namespace else {})},
            pipeline_file=str(file),
            arguments=values,
            run_name=name,
            experiment_name=experiment,
            namespace=namespace,
            pipeline_root=pipeline_root,
        )


def _create_run(client: dict[str, Any], **run: Any) -> str:
    import kfp
    import kfp_server_api

    try:
        created = kfp.Client(**client).create_run_from_pipeline_package(**run)
    except kfp_server_api.ApiException as error:
        reason = " ".join((error.body or str(error.reason)).split())
        raise ChildFailedError(f"{client['host']}: rejected the run: {error.status} {reason}") from error
    if not created.run_id:
        raise ChildFailedError(f"{client['host']}: returned no run; is it the Kubeflow Pipelines API?")
    return f"{client['host'].rstrip('/')}/#/runs/details/{created.run_id}"
