"""Objects of an S3 store: `s3://BUCKET/KEY` names a file, `s3://BUCKET/PREFIX` a folder.

Endpoint, region and credentials come from the environment, as for every AWS client (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...). `AWS_REGION` takes precedence over `AWS_DEFAULT_REGION`, which is the only one
that boto3 reads. boto3 is imported on first use, because most runs do not need it.

Every function that reaches the store raises `StoreError` if the store refuses the request, or cannot be reached after
all retries.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from rarft.environment import read_variable
from rarft.errors import InputError

SCHEME = "s3://"
_PART_SIZE = 64 * 2**20  # bytes; S3 accepts 10,000 parts, so objects of up to 640 GB
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 60.0
_REQUEST_ATTEMPTS = 5
_TRANSFER_ATTEMPTS = 3  # each with all attempts of its requests
_SHA256 = "sha256"  # key in an object's metadata
_BUCKET = re.compile(r"[a-zA-Z0-9.\-_]{1,255}")

# What to do about the error codes of a store.
_ERROR_HINTS = {
    "NoSuchBucket": "no such bucket; create it or check the name",
    "NoSuchKey": "no such object; check the path",
    "404": "no such object or bucket; check the path",
    "AccessDenied": "access denied; check the permissions of the credentials",
    "403": "access denied; check the credentials and their permissions",
    "PreconditionFailed": "the object changed while it was read; do not replace objects during a run",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID; check the credentials",
    "SignatureDoesNotMatch": "wrong AWS_SECRET_ACCESS_KEY; check the credentials",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired; get new credentials",
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to the credentials; set all three again, or unset it",
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ; synchronize them",
    "SlowDown": "the store limits the rate of requests; try again later",
}
# Error codes of a store whose region is not the one that requests are signed for.
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301"}


class StoreError(InputError):
    """The store refused a request or cannot be reached."""


class ObjectNotFoundError(StoreError):
    """The store has no such object."""


def is_object_uri(location: str | Path) -> TypeGuard[str]:
    """Check whether a location is in an S3 store."""
    return isinstance(location, str) and location[: len(SCHEME)].lower() == SCHEME


def split_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an object's or a folder's URI.

    Raises:
        InputError: The URI has no bucket, or an invalid one.
    """
    bucket, _, key = uri[len(SCHEME) :].partition("/")
    if not _BUCKET.fullmatch(bucket):
        problem = f"invalid bucket name {bucket!r}" if bucket else "no bucket"
        raise InputError(f"{uri}: {problem}; use s3://BUCKET/KEY")
    return bucket, key


def client() -> Any:
    """Return an S3 client that retries and uses only what every S3 implementation supports."""
    return _client(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))


@lru_cache(maxsize=4)  # creating a client takes 0.1 s; threads may share it
def _client(_environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config

    endpoint_name = "AWS_ENDPOINT_URL_S3" if read_variable("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
    endpoint = read_variable(endpoint_name)
    if endpoint and not endpoint.lower().startswith(("http://", "https://")):
        raise InputError(f"{endpoint_name} {endpoint}: not a URL; use a form such as http://localhost:8333")
    key, secret = read_variable("AWS_ACCESS_KEY_ID"), read_variable("AWS_SECRET_ACCESS_KEY")
    session = boto3.session.Session(  # the default session would keep earlier credentials
        # Credentials that are not in the environment come from the sources of boto3, such as a web identity.
        aws_access_key_id=key if secret else None,
        aws_secret_access_key=secret if key else None,
        aws_session_token=read_variable("AWS_SESSION_TOKEN") if key and secret else None,
        region_name=read_variable("AWS_REGION") or read_variable("AWS_DEFAULT_REGION"),
    )
    return session.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "max_attempts": _REQUEST_ATTEMPTS},
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def wrap_s3_errors(uri: str, action: str) -> Iterator[None]:
    """Turn the exceptions of boto3 into a `StoreError` with a one-line message."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    # boto3 raises a KeyError if a truncated answer lacks the field that it looks up.
    except (
        Boto3Error, BotoCoreError, ClientError, ResponseParserError, RetriesExceededError, ValueError, KeyError
    ) as error:  # fmt: skip
        answer = error.response["Error"] if isinstance(error, ClientError) else {}
        code = answer.get("Code", "")
        reason = _ERROR_HINTS.get(code) or " ".join(str(error).split())
        if code in _WRONG_REGION:
            reason = f"{answer.get('Message') or 'wrong region'}; set AWS_REGION to the store's region"
        if "WRONG_VERSION_NUMBER" in reason:
            reason = "the endpoint does not speak TLS; use http:// in AWS_ENDPOINT_URL"
        if isinstance(error, NoCredentialsError):
            reason = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        error_class = ObjectNotFoundError if code in ("404", "NoSuchKey") else StoreError
        raise error_class(f"{uri}: cannot be {action} ({reason})") from error


@contextmanager
def request(uri: str, action: str) -> Iterator[tuple[Any, str, str]]:
    """Yield a client and the bucket and key of a URI, and turn the exceptions of boto3 into a `StoreError`.

    Args:
        uri: Object or folder.
        action: "read" or "written", for messages.
    """
    with wrap_s3_errors(uri, action):
        yield client(), *split_uri(uri)


def _is_permanent(error: BaseException | None) -> bool:
    """Check whether repeating the request would give the same error."""
    from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError

    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        return code in _WRONG_REGION or (code in _ERROR_HINTS and code != "SlowDown")
    return isinstance(error, NoCredentialsError | ParamValidationError | ValueError)


def _transfer(submit: Callable[[Any, str, Path], Any], files: Sequence[tuple[str, Path]], action: str) -> None:
    """Transfer files concurrently with boto3's classic manager; repeat the transfers that broken connections ended.

    Args:
        submit: Function of a transfer manager, an object's URI and a local path that submits one transfer.
        files: URI and path of each file.
        action: "read" or "written", for messages.
    """
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    config = TransferConfig(
        preferred_transfer_client="classic",
        multipart_threshold=_PART_SIZE,
        multipart_chunksize=_PART_SIZE,
        max_concurrency=8,
    )
    for attempt in range(1, _TRANSFER_ATTEMPTS + 1):
        failed = []
        with wrap_s3_errors(files[0][0] if files else SCHEME, action):
            connected = client()
        with create_transfer_manager(connected, config) as manager:
            futures = [(file, submit(manager, *file)) for file in files]
            for file, future in futures:
                try:
                    with wrap_s3_errors(file[0], action):
                        future.result()
                except StoreError as error:
                    if attempt == _TRANSFER_ATTEMPTS or _is_permanent(error.__cause__):
                        raise
                    failed.append(file)
        if not failed:
            return
        files = failed


def download(files: Sequence[tuple[str, Path]]) -> None:
    """Download objects, each given as its URI and local path. Missing parent folders are created."""
    for _, path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
    _transfer(lambda manager, uri, path: manager.download(*split_uri(uri), str(path)), files, "read")


class UploadCancelledError(Exception):
    """An upload was cancelled by its `should_stop`."""


def upload(
    files: Sequence[tuple[str, Path]],
    *,
    hashes: dict[str, str] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Upload files, each given as its object's URI and its local path. Each object appears atomically.

    Args:
        files: URI and path of each file.
        hashes: SHA-256 of the content by URI, stored in the object's metadata for `stored_sha256`.
        should_stop: Function that is called during the transfer and returns True to cancel it.

    Raises:
        UploadCancelledError: `should_stop` returned True. Files that were complete are in the store.
    """
    from s3transfer.exceptions import CancelledError

    class Cancel:
        def on_progress(self, future: Any, **_: Any) -> None:
            if should_stop():
                future.cancel()

    def submit(manager: Any, uri: str, path: Path) -> Any:
        known = (hashes or {}).get(uri)
        return manager.upload(
            str(path), *split_uri(uri), {"Metadata": {_SHA256: known}} if known else None, [Cancel()]
        )

    try:
        _transfer(submit, files, "written")
    except CancelledError as error:
        raise UploadCancelledError from error


def stored_sha256(uri: str) -> str | None:
    """Return the SHA-256 in an object's metadata; None if there is none, or no such object."""
    from botocore.exceptions import ClientError

    with request(uri, "read") as (connected, bucket, key):
        try:
            metadata: dict[str, str] = connected.head_object(Bucket=bucket, Key=key)["Metadata"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
    return metadata.get(_SHA256)


def size_and_etag(uri: str) -> tuple[int, str]:
    """Return an object's size in bytes and its ETag, which changes when the content does."""
    with request(uri, "read") as (connected, bucket, key):
        head = connected.head_object(Bucket=bucket, Key=key)
        return head["ContentLength"], head["ETag"]


def object_version(uri: str) -> str:
    """Return a text that changes when the object does: its size and ETag."""
    size, etag = size_and_etag(uri)
    return f"{size} {etag}"


def read_range(uri: str, start: int, stop: int, etag: str) -> bytes:
    """Return bytes `start` to `stop` (exclusive) of an object.

    Raises:
        StoreError: The object does not have this ETag any more, or cannot be read.
    """
    for attempt in range(1, _TRANSFER_ATTEMPTS + 1):
        try:
            with request(uri, "read") as (connected, bucket, key):
                span = f"bytes={start}-{stop - 1}"
                reply = connected.get_object(Bucket=bucket, Key=key, Range=span, IfMatch=etag)
                if reply["ETag"] == etag:
                    content: bytes = reply["Body"].read()
                    if len(content) != stop - start:
                        raise ValueError("the store does not support ranges")
                    return content
        except StoreError as error:
            # The client repeats requests, but not the reading of a body.
            if attempt == _TRANSFER_ATTEMPTS or _is_permanent(error.__cause__):
                raise
        else:
            break
    raise StoreError(f"{uri}: cannot be read ({_ERROR_HINTS['PreconditionFailed']})")


def _pages(operation: str, required_key: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Return all pages of a listing. A truncated answer, which can look like an empty one, is requested again."""
    for _ in range(_TRANSFER_ATTEMPTS):
        pages = list(client().get_paginator(operation).paginate(Bucket=bucket, Prefix=prefix))
        if all(required_key in page for page in pages):
            return pages
    raise ValueError("truncated answer")


def list_objects(uri: str) -> dict[str, tuple[int, str]]:
    """Return size in bytes and ETag of every object in a folder, by its name relative to the folder."""
    with request(uri.rstrip("/") + "/", "read") as (_, bucket, prefix):
        return {
            entry["Key"].removeprefix(prefix): (entry["Size"], entry.get("ETag", ""))
            for page in _pages("list_objects_v2", "Name", bucket, prefix)
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")  # a placeholder that consoles create for an empty folder
        }


def abort_multipart_uploads(uri: str) -> None:
    """Abort a folder's unfinished multipart uploads, which broken connections leave; they are invisible but billed.

    There must be no other writer in the folder.
    """
    from botocore.exceptions import ClientError

    with request(uri.rstrip("/") + "/", "written") as (connected, bucket, prefix):
        try:
            pages = _pages("list_multipart_uploads", "Bucket", bucket, prefix)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":  # rclone's answer if there is none
                raise
            return
        for pending in (pending for page in pages for pending in page.get("Uploads") or []):
            connected.abort_multipart_upload(Bucket=bucket, Key=pending["Key"], UploadId=pending["UploadId"])
