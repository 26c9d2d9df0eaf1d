"""Commands on the whole pipeline: run, compile, submit, watch. The only module of `rarft` that imports `pipelines`."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from rarft.cli.parser import Commands, spell_flags

logger = logging.getLogger(__name__)


def _run(training_flags: Sequence[str], **options: Any) -> None:
    logger.info("checking settings")
    from pipelines.local import LocalRun, run

    run(LocalRun(training_flags=spell_flags(training_flags, "_"), **options))


def _compile(out: str, profile: str) -> None:
    from pipelines.compile import compile_pipeline

    compile_pipeline(out, profile)
    print(out)


def _submit(wait: bool, **options: Any) -> None:
    from pipelines.endpoint import open_endpoint
    from pipelines.submit import submit

    run_id = submit(**options)
    print(open_endpoint(options["endpoint"]).run_page(run_id), flush=True)
    if wait:
        _watch(run_id, options["endpoint"], options["namespace"], started_here=True)


def _watch(run_id: str, endpoint: str, namespace: str | None, started_here: bool = False) -> None:
    from pipelines.watch import watch

    watch(run_id, endpoint, namespace, started_here)


def _add_parameter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        "--parameter",
        dest="assignments",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Pipeline parameter; @FILE for the content of a file; repeatable.",
    )


def _profiles() -> str:
    from pipelines.profiles import DEFAULT_PROFILE, PROFILES

    return f"Compile-time profile: {', '.join(PROFILES)} (default: {DEFAULT_PROFILE})."


def _add_run(commands: Commands) -> None:
    parser = commands.add(
        "run", _run, "Run the whole pipeline on this machine. Flags of `rarft train` may follow `--`."
    )
    parser.add_argument("--annotations", required=True, help="Training annotations in the RIQ format.")
    parser.add_argument("--video-root", help="Folder of the videos (default: same folder as the annotations).")
    parser.add_argument("--eval-annotations", help="Held-out annotations (default: evaluate in-sample).")
    parser.add_argument("--out", required=True, help="Folder or s3:// URI for all output.")
    parser.add_argument("--preset", help="Training preset (default: tiny).")
    parser.add_argument(
        "--runner", choices=["subprocess", "docker"], default="subprocess", help="How steps run (default: subprocess)."
    )
    parser.add_argument("--docker-network", dest="network", help="Network that containers join, such as host.")
    parser.add_argument("--gpus", action="store_true", help="Pass the machine's GPUs to containers.")
    parser.add_argument(
        "--work-dir", help="Local work folder if --out is in a store (default: in the user's cache folder)."
    )
    _add_parameter(parser)
    parser.add_argument("training_flags", nargs="*", metavar="-- TRAINING FLAGS", help="Flags of `rarft train`.")


def _add_compile(commands: Commands) -> None:
    from pipelines.profiles import DEFAULT_PROFILE

    parser = commands.add("compile", _compile, "Compile the Kubeflow pipeline to YAML.")
    parser.add_argument("--out", required=True, help="File to write.")
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help=_profiles())


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint", required=True, help="URL of the Kubeflow Pipelines API; set KFP_TOKEN to its token."
    )


def _add_submit(commands: Commands) -> None:
    parser = commands.add("submit", _submit, "Start a run of the pipeline on a Kubeflow endpoint.")
    _add_endpoint(parser)
    parser.add_argument("--pipeline", metavar="FILE", help="Compiled pipeline (default: compile it).")
    parser.add_argument("--profile", help=_profiles())
    parser.add_argument("--experiment", default="rarft", help="Experiment to add the run to (default: rarft).")
    parser.add_argument("--name", help="Name of the run (default: timestamped).")
    parser.add_argument("--namespace", help="Namespace of the run, in multi-user mode.")
    parser.add_argument("--pipeline-root", metavar="URI", help="Root of the artifacts (default: endpoint default).")
    parser.add_argument("--wait", action="store_true", help="Follow the run to its end, like `rarft watch`.")
    _add_parameter(parser)


def _add_watch(commands: Commands) -> None:
    parser = commands.add(
        "watch", _watch, "Follow a run on a Kubeflow endpoint to its end; exit with 1 if it fails or is canceled."
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="ID of the run, or the URL of its page.")
    _add_endpoint(parser)
    parser.add_argument(
        "--namespace", help="Namespace of the run's pods (default: that of its experiment, or kubeflow)."
    )


def add_pipeline_commands(commands: Commands) -> None:
    """Add the commands on the whole pipeline."""
    _add_run(commands)
    _add_compile(commands)
    _add_submit(commands)
    _add_watch(commands)
