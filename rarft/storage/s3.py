"""Objects of an S3 store, read and written whole: `s3://BUCKET/KEY` is a file, `s3://BUCKET/PREFIX` a folder.

Endpoint, region and credentials come from the environment, as for every AWS client (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...). boto3 is imported where it is used: most runs need none.
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
_PART = 64 * 2**20  # bytes; S3 takes 10,000 parts, so objects of up to 640 GB
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10.0, 60.0  # seconds
_ATTEMPTS = 5  # of one request
_ROUNDS = 3  # of a transfer whose requests' attempts are used up
_SHA256 = "sha256"  # metadata of an object: of its content

# What a store answers, and what to do about it.
_ERROR_HINTS = {
    "NoSuchBucket": "no such bucket; create it or check the name",
    "NoSuchKey": "no such object; check the path",
    "404": "no such object or bucket; check the path",
    "AccessDenied": "access denied; check the rights of the credentials",
    "403": "access denied; check the credentials and their rights",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID; check the credentials",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit; check the credentials",
}


class StoreError(InputError):
    """The store refused, has not got what was asked for, or cannot be reached."""


class ObjectNotFoundError(StoreError):
    """The store has no such object."""


def is_object_uri(where: str | Path) -> TypeGuard[str]:
    """Whether `where` lies in an S3 store."""
    return isinstance(where, str) and where.startswith(SCHEME)


def client() -> Any:
    """An S3 client that waits and retries, and asks nothing of a store that only AWS's own understands."""
    return _client(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))


@lru_cache(maxsize=4)  # making one reads files for a tenth of a second; threads may share it
def _client(_environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(  # the default session would keep earlier credentials
        "s3",
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT,
            read_timeout=_READ_TIMEOUT,
            retries={"mode": "standard", "max_attempts": _ATTEMPTS},
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    return bucket, key


@contextmanager
def _wrap_s3_errors(uri: str, what: str, action: str) -> Iterator[None]:
    """Turn what boto3 raises into one line.

    Raises:
        StoreError: the store refused, has not got it, or cannot be reached after the retries.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    # A KeyError is boto3's own: the answer was cut off before what it looks for.
    except (
        Boto3Error, BotoCoreError, ClientError, ResponseParserError, RetriesExceededError, ValueError, KeyError
    ) as error:  # fmt: skip
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        reason = _ERROR_HINTS.get(code) or " ".join(str(error).split())
        if isinstance(error, NoCredentialsError):
            reason = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        kind = ObjectNotFoundError if code in ("404", "NoSuchKey") else StoreError
        raise kind(f"{what} {uri}: cannot be {action} ({reason})".lstrip()) from error


def _is_permanent(error: Exception) -> bool:
    """Whether the store's answer would be the same another time."""
    from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError

    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in _ERROR_HINTS
    return isinstance(error, NoCredentialsError | ParamValidationError | ValueError)


def _transfer(
    submit: Callable[[Any, str, Path], Any], files: Sequence[tuple[str, Path]], what: str, action: str
) -> None:
    """Run transfers side by side by boto3's classic manager; what a broken connection ended is begun again.

    Args:
        submit: puts one transfer, of an object's URI and a local path, into the manager.
        files: URI and path of each.
        what: the flag that named them, for messages.
        deed: read or written.

    Raises:
        StoreError: the store refused one of them, or could not be reached in all rounds.
        OSError: a local file cannot be read or written.
    """
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    config = TransferConfig(
        preferred_transfer_client="classic", multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=8
    )
    for last in [*[False] * (_ROUNDS - 1), True]:
        failed = []
        with _wrap_s3_errors(files[0][0] if files else SCHEME, what, action):
            connected = client()
        with create_transfer_manager(connected, config) as manager:
            futures = [(file, submit(manager, *file)) for file in files]
            for file, future in futures:
                try:
                    with _wrap_s3_errors(file[0], what, action):
                        future.result()
                except StoreError as error:
                    if last or (error.__cause__ is not None and _is_permanent(error.__cause__)):  # type: ignore[arg-type]
                        raise
                    failed.append(file)
        if not failed:
            return
        files = failed


def download(files: Sequence[tuple[str, Path]], what: str = "") -> None:
    """Write the content of each object, named by its URI, to the path beside it.

    Raises:
        StoreError: an object is not there, or cannot be read.
    """

    def submit(manager: Any, uri: str, path: Path) -> Any:
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket, key = _split(uri)
        return manager.download(bucket, key, str(path))

    _transfer(submit, files, what, "read")


def upload(files: Sequence[tuple[str, Path]], what: str = "", hashes: dict[str, str] | None = None) -> None:
    """Write each file's content to the object of that URI: complete or not there.

    Args:
        files: URI and path of each.
        what: the flag that named them, for messages.
        hashes: SHA-256 of each URI's content, if known; an object says it, and `sha256_of` finds it there.

    Raises:
        StoreError: an object cannot be written.
    """

    def submit(manager: Any, uri: str, path: Path) -> Any:
        bucket, key = _split(uri)
        known = (hashes or {}).get(uri)
        return manager.upload(str(path), bucket, key, {"Metadata": {_SHA256: known}} if known else None)

    _transfer(submit, files, what, "written")


def read(uri: str, what: str = "") -> bytes:
    """A small object's content.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        download([(uri, path)], what)  # begins anew where the connection breaks within the content
        return path.read_bytes()


def write(uri: str, content: bytes, what: str = "") -> None:
    """Write a small object.

    Raises:
        StoreError: it cannot be written.
    """
    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, what, "written"):
        client().put_object(Bucket=bucket, Key=key, Body=content)


def sha256_of(uri: str, what: str = "") -> str | None:
    """What the object says of its content; None where it says nothing, or is not there."""
    from botocore.exceptions import ClientError

    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, what, "read"):
        try:
            metadata: dict[str, str] = client().head_object(Bucket=bucket, Key=key)["Metadata"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
    return metadata.get(_SHA256)


def version_of(uri: str, what: str = "") -> str:
    """What changes when the object does: its size and the store's tag of it.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, what, "read"):
        head = client().head_object(Bucket=bucket, Key=key)
    return f"{head['ContentLength']} {head['ETag']}"


def _pages(listing: str, always: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """All answers to a listing.

    One that is cut off may read like an empty one: it lacks what every answer says, and is asked for again.
    """
    for _ in range(_ROUNDS):
        pages = list(client().get_paginator(listing).paginate(Bucket=bucket, Prefix=prefix))
        if all(always in page for page in pages):
            return pages
    raise ValueError("the store's answer was cut off")


def entries(uri: str, what: str = "") -> dict[str, tuple[int, str]]:
    """Size in bytes and the store's tag of every object under a folder, by its name relative to it."""
    bucket, prefix = _split(uri.rstrip("/") + "/")
    with _wrap_s3_errors(uri, what, "read"):
        return {
            entry["Key"].removeprefix(prefix): (entry["Size"], entry.get("ETag", ""))
            for page in _pages("list_objects_v2", "Name", bucket, prefix)
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")  # what a console makes to show an empty folder
        }


def sizes(uri: str, what: str = "") -> dict[str, int]:
    """Size in bytes of every object under a folder, by its name relative to it."""
    return {name: size for name, (size, _) in entries(uri, what).items()}


def delete(uri: str, what: str = "") -> None:
    """Remove the object, if it is there."""
    bucket, key = _split(uri)
    with _wrap_s3_errors(uri, what, "written"):
        client().delete_object(Bucket=bucket, Key=key)


def abort_pending(uri: str, what: str = "") -> int:
    """Abort the multipart uploads under a folder that nobody finished; returns how many.

    A connection that breaks at the wrong moment leaves one behind, unseen and paid for. There must be no other
    writer under the folder.
    """
    bucket, prefix = _split(uri.rstrip("/") + "/")
    from botocore.exceptions import ClientError

    with _wrap_s3_errors(uri, what, "written"):
        try:
            pages = _pages("list_multipart_uploads", "Bucket", bucket, prefix)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":  # rclone's answer where there is none
                raise
            return 0
        pending = [upload for page in pages for upload in page.get("Uploads") or []]
        for upload in pending:
            client().abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return len(pending)


def check_writable(uri: str, what: str = "") -> None:
    """Make sure that these credentials may write and delete objects of the folder, by doing it.

    Raises:
        StoreError: the bucket is not there, or does not let them.
    """
    probe = f"{uri.rstrip('/')}/.writable-{uuid.uuid4().hex}"
    with _wrap_s3_errors(uri, what, "written"):
        client().head_bucket(Bucket=_split(uri)[0])
        bucket, key = _split(probe)
        client().put_object(Bucket=bucket, Key=key, Body=b"")
        client().delete_object(Bucket=bucket, Key=key)
