"""Objects of an S3 store: `s3://BUCKET/KEY` names a file, `s3://BUCKET/PREFIX` a folder.

Endpoint, region and credentials come from the environment, as for every AWS client (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...). boto3 is imported on first use, because most runs do not need it.

Every function that reaches the store raises `StoreError` if the store refuses the request, or cannot be reached after
all retries.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from rarft.errors import InputError

SCHEME = "s3://"
_PART_SIZE = 64 * 2**20  # bytes; S3 accepts 10,000 parts, so objects of up to 640 GB
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 60.0
_REQUEST_ATTEMPTS = 5
_TRANSFER_ATTEMPTS = 3  # each with all attempts of its requests
_SHA256 = "sha256"  # key in an object's metadata

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
}


class StoreError(InputError):
    """The store refused a request or cannot be reached."""


class ObjectNotFoundError(StoreError):
    """The store has no such object."""


def is_object_uri(location: str | Path) -> TypeGuard[str]:
    """Check whether a location is in an S3 store."""
    return isinstance(location, str) and location.startswith(SCHEME)


def client() -> Any:
    """Return an S3 client that retries and uses only what every S3 implementation supports."""
    return _client(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))


@lru_cache(maxsize=4)  # creating a client takes 0.1 s; threads may share it
def _client(_environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(  # the default session would keep earlier credentials
        "s3",
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "max_attempts": _REQUEST_ATTEMPTS},
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    return bucket, key


@contextmanager
def _wrap_s3_errors(uri: str, action: str) -> Iterator[None]:
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
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        reason = _ERROR_HINTS.get(code) or " ".join(str(error).split())
        if isinstance(error, NoCredentialsError):
            reason = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        error_class = ObjectNotFoundError if code in ("404", "NoSuchKey") else StoreError
        raise error_class(f"{uri}: cannot be {action} ({reason})") from error


def _is_permanent(error: BaseException | None) -> bool:
    """Check whether repeating the request would give the same error."""
    from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError

    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in _ERROR_HINTS
    return isinstance(error, NoCredentialsError | ParamValidationError | ValueError)


def _transfer(submit: Callable[[Any, str, Path], Any], files: Sequence[tuple[str, Path]], action: str) -> None:
    """Transfer files concurrently by boto3's classic manager; repeat the transfers that broken connections ended.

    Args:
        submit: Function of a transfer manager, an object's URI and a local path that submits one transfer.
        files: URI and path of each file.
        action: "read" or "written", for messages.

    Raises:
        StoreError: The store refused a transfer, or failed in all attempts.
        OSError: A local file cannot be read or written.
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
        with _wrap_s3_errors(files[0][0] if files else SCHEME, action):
            connected = client()
        with create_transfer_manager(connected, config) as manager:
            futures = [(file, submit(manager, *file)) for file in files]
            for file, future in futures:
                try:
                    with _wrap_s3_errors(file[0], action):
                        future.result()
                except StoreError as error:
                    if attempt == _TRANSFER_ATTEMPTS or _is_permanent(error.__cause__):
                        raise
                    failed.append(file)
        if not failed:
            return
        files = failed


def download(files: Sequence[tuple[str, Path]]) -> None:
    """Download objects.

    Args:
        files: URI and local path of each object; missing parent folders are created.
    """

    def submit(manager: Any, uri: str, path: Path) -> Any:
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket, key = _split(uri)
        return manager.download(bucket, key, str(path))

    _transfer(submit, files, "read")


def upload(files: Sequence[tuple[str, Path]], *, hashes: dict[str, str] | None = None) -> None:
    """Upload files; each object appears atomically.

    Args:
        files: URI and local path of each file.
        hashes: SHA-256 of the content by URI, stored in the object's metadata for `stored_sha256`.
    """

    def submit(manager: Any, uri: str, path: Path) -> Any:
        bucket, key = _split(uri)
        known = (hashes or {}).get(uri)
        return manager.upload(str(path), bucket, key, {"Metadata": {_SHA256: known}} if known else None)

    _transfer(submit, files, "written")


def read(uri: str) -> bytes:
    """Return the content of a small object."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        download([(uri, path)])  # unlike get_object, it retries if the connection breaks within the content
        return path.read_bytes()


def write(uri: str, content: bytes) -> None:
    """Write a small object."""
    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, "written"):
        client().put_object(Bucket=bucket, Key=key, Body=content)


def stored_sha256(uri: str) -> str | None:
    """Return the SHA-256 in an object's metadata; None if there is none, or no such object."""
    from botocore.exceptions import ClientError

    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, "read"):
        try:
            metadata: dict[str, str] = client().head_object(Bucket=bucket, Key=key)["Metadata"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
    return metadata.get(_SHA256)


def size_and_etag(uri: str) -> tuple[int, str]:
    """Return an object's size in bytes and its ETag, which changes when the content does."""
    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, "read"):
        head = client().head_object(Bucket=bucket, Key=key)
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
    bucket, key = _split(uri)
    for attempt in range(1, _TRANSFER_ATTEMPTS + 1):
        try:
            with _wrap_s3_errors(uri, "read"):
                reply = client().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=etag)
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
    """Return all pages of a listing.

    A truncated answer can look like an empty one. It lacks the key that every answer has, and is requested again.
    """
    for _ in range(_TRANSFER_ATTEMPTS):
        pages = list(client().get_paginator(operation).paginate(Bucket=bucket, Prefix=prefix))
        if all(required_key in page for page in pages):
            return pages
    raise ValueError("truncated answer")


def list_objects(uri: str) -> dict[str, tuple[int, str]]:
    """Return size in bytes and ETag of every object in a folder, by its name relative to the folder."""
    bucket, prefix = _split(uri.rstrip("/") + "/")
    with _wrap_s3_errors(uri, "read"):
        return {
            entry["Key"].removeprefix(prefix): (entry["Size"], entry.get("ETag", ""))
            for page in _pages("list_objects_v2", "Name", bucket, prefix)
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")  # a placeholder that consoles create for an empty folder
        }


def sizes(uri: str) -> dict[str, int]:
    """Return the size in bytes of every object in a folder, by its name relative to the folder."""
    return {name: size for name, (size, _) in list_objects(uri).items()}


def delete(uri: str) -> None:
    """Delete an object if it exists."""
    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, "written"):
        client().delete_object(Bucket=bucket, Key=key)


def abort_multipart_uploads(uri: str) -> int:
    """Abort a folder's unfinished multipart uploads, which broken connections leave; they are invisible but billed.

    There must be no other writer in the folder.

    Returns:
        Number of aborted uploads.
    """
    from botocore.exceptions import ClientError

    bucket, prefix = _split(uri.rstrip("/") + "/")
    with _wrap_s3_errors(uri, "written"):
        try:
            pages = _pages("list_multipart_uploads", "Bucket", bucket, prefix)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":  # rclone's answer if there is none
                raise
            return 0
        pending = [upload for page in pages for upload in page.get("Uploads") or []]
        for upload in pending:
            client().abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return len(pending)


def check_writable(uri: str) -> None:
    """Check that objects of a folder can be written and deleted, by doing it."""
    bucket, key = _split(f"{uri.rstrip('/')}/.writable-{uuid.uuid4().hex}")
    with _wrap_s3_errors(uri, "written"):
        client().head_bucket(Bucket=bucket)
        client().put_object(Bucket=bucket, Key=key, Body=b"")
        client().delete_object(Bucket=bucket, Key=key)
