"""Commands on the cluster and on this machine: cancel, doctor."""

from typing import Any

from rarft.cli.parser import Commands
from rarft.cli.types import non_negative_int


def _cancel(job: str, namespace: str | None) -> None:
    from rarft import steps

    namespace = steps.cancel(job, namespace)
    print(f"job {job} in namespace {namespace}: deleted; its pods save a checkpoint before they end")


def _doctor(**options: Any) -> None:
    from rarft import steps
    from rarft.errors import CheckFailedError

    table, failed = steps.doctor(**options)
    print(table)
    if failed:
        raise CheckFailedError(f"failed checks: {', '.join(failed)}")


def add_cluster_commands(commands: Commands) -> None:
    """Add the commands on the cluster."""
    parser = commands.add("cancel", _cancel, "Cancel a training job on the cluster.")
    parser.add_argument("job", help="Name of the job; for a pipeline run, rarft-RUN_ID.")
    parser.add_argument("--namespace", help="Namespace of the job (default: current namespace).")

    parser = commands.add("doctor", _doctor, "Check what would fail later; exit with 1 if a check fails.")
    parser.add_argument("--data", help="Annotations or validated data that should be readable.")
    parser.add_argument("--out", help="Folder or s3:// URI that should be writable.")
    parser.add_argument(
        "--gpus",
        type=non_negative_int,
        help="Number of GPUs that this machine should have; with --cluster, the nodes.",
    )
    parser.add_argument("--cluster", action="store_true", help="Check the cluster, too.")
    parser.add_argument("--namespace", help="Namespace on the cluster (default: current namespace).")
    parser.add_argument("--image", help="Image of the job.")
    parser.add_argument("--queue", help="Kueue's local queue of the job.")
    parser.add_argument(
        "--accelerator", default="nvidia.com/gpu", help="Resource name of the nodes' GPUs (default: nvidia.com/gpu)."
    )
    parser.add_argument("--kind", choices=["trainjob", "pytorchjob"], help="Kind of the job (default: both).")
