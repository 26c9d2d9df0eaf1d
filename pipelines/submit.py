"""`rarft submit`: a run of the compiled pipeline on a Kubeflow Pipelines endpoint."""

import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.checks import check
from pipelines.compile import compile_pipeline
from pipelines.parameters import check_complete, parse
from pipelines.profiles import DEFAULT_PROFILE
from rarft.errors import ChildFailedError, InputError
from rarft.storage.files import existing_file

TOKEN = "KFP_TOKEN"  # variable with the token that the endpoint wants, if it wants one
_TIMEOUT_S = 20.0  # seconds for the endpoint's first answer


def read_compiled(path: Path) -> PipelineSpec:
    """The pipeline of a compiled file.

    Raises:
        InputError: it is none.
    """
    try:
        document = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        return json_format.ParseDict(document, PipelineSpec())
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, json_format.ParseError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--pipeline {path}: is no compiled pipeline ({reason}); make it by `rarft compile`"
        ) from error


def _check_endpoint(endpoint: str, token: str | None) -> None:
    """Ask the endpoint how it is, before anything is made there.

    Raises:
        InputError: there is no Kubeflow Pipelines API, or it does not let this user in.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"--endpoint {endpoint}: give a URL, such as http://localhost:8888")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/apis/v2beta1/healthz", headers=headers)
    is_it = "is it the address of Kubeflow Pipelines' API, and not of a login page?"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        hint = f"set {TOKEN}" if error.code in (401, 403) else is_it
        raise InputError(f"--endpoint {endpoint}: answered {error.code} {error.reason}; {hint}") from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"--endpoint {endpoint}: cannot be reached ({reason}); check address and network") from error
    try:
        healthy = isinstance(json.loads(content), dict)
    except ValueError:
        healthy = False
    if not healthy:
        raise InputError(f"--endpoint {endpoint}: answered something else than its health; {is_it}")


def _check_places(values: dict[str, Any]) -> None:
    """Make sure that data and outputs are named by URIs, or by paths that can be those of a mounted volume.

    Raises:
        InputError: one is a path of this machine's working folder.
    """
    for name in ("annotations", "video_root", "eval_annotations", "eval_video_root", "output_uri", "final_uri"):
        where = values.get(name, "")
        if where and not where.startswith(("s3://", "/")):
            raise InputError(
                f"-p {name}={where}: a cluster does not see this machine's files; give an s3:// URI, or with the "
                "profile `claim` a path under /data"
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
    """Start a run of the pipeline; returns its page's address.

    Args:
        endpoint: URL of Kubeflow Pipelines' API. A token that it wants is taken from the environment's `KFP_TOKEN`.
        assignments: the pipeline's parameters, each `name=value`.
        pipeline: compiled file; None to compile it now.
        profile: what is decided when compiling; None for the usual.
        experiment: that the run belongs to; made where it is not there.
        name: of the run; None for one with the time.
        namespace: where Kubeflow has several users.
        pipeline_root: URI that artifacts go under; None for the endpoint's own.

    Raises:
        InputError: a parameter or the endpoint is wrong; nothing was started.
        ChildFailedError: the endpoint refused the run; its answer.
    """
    if pipeline is not None and profile is not None:
        raise InputError(f"--profile {profile}: --pipeline {pipeline} is compiled already; leave one of them out")
    with tempfile.TemporaryDirectory() as folder:
        if pipeline is None:
            file = Path(folder) / "rarft.yaml"
            compile_pipeline(str(file), profile or DEFAULT_PROFILE)
        else:
            file = existing_file(pipeline, "--pipeline")
        spec = read_compiled(file)
        values = parse(assignments, spec)
        check_complete(values, spec)
        check(values, job="launch-pytorchjob" in spec.root.dag.tasks)
        _check_places(values)
        token = os.environ.get(TOKEN)
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
        answer = " ".join((error.body or str(error.reason)).split())
        raise ChildFailedError(f"{client['host']} refused the run: {error.status} {answer}") from error
    if not created.run_id:
        raise ChildFailedError(
            f"{client['host']} answered without a run; is it the address of Kubeflow Pipelines' API?"
        )
    return f"{client['host'].rstrip('/')}/#/runs/details/{created.run_id}"
