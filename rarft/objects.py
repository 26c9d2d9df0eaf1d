"""Objects of an S3 store, read and written whole: `s3://BUCKET/KEY` is a file, `s3://BUCKET/PREFIX` a folder.

Endpoint, region and credentials come from the environment, as for every AWS client (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...). boto3 is imported where it is used: most runs need none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from rarft.errors import InputError

SCHEME = "s3://"
_PART = 64 * 2**20  # bytes; S3 takes 10,000 parts, so objects of up to 640 GB

# What a store answers, and what to do about it.
_MENDS = {
    "NoSuchBucket": "no such bucket; create it or check the name",
    "NoSuchKey": "no such object; check the path",
    "404": "no such object or bucket; check the path",
    "AccessDenied": "access denied; check the rights of the credentials",
    "403": "access denied; check the credentials and their rights",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID; check the credentials",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit; check the credentials",
}


def is_object_uri(where: str | Path) -> TypeGuard[str]:
    """Whether `where` lies in an S3 store."""
    return isinstance(where, str) and where.startswith(SCHEME)


def client() -> Any:
    """An S3 client that waits and retries, and asks nothing of a store that only AWS's own understands."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 5},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        preferred_transfer_client="classic", multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=8
    )


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    return bucket, key


@contextmanager
def _told(uri: str, what: str, deed: str) -> Iterator[None]:
    """Turn what boto3 raises into one line.

    Raises:
        InputError: the store refused, has not got it, or cannot be reached after the retries.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ValueError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        reason = _MENDS.get(code) or " ".join(str(error).split())
        raise InputError(f"{what} {uri}: cannot be {deed} ({reason})") from error


def download(uri: str, path: Path, what: str) -> None:
    """Write the object's content to `path`."""
    with _told(uri, what, "read"):
        client().download_file(*_split(uri), str(path), Config=_transfer())


def upload(path: Path, uri: str, what: str) -> None:
    """Write the file's content to the object: complete or not there."""
    with _told(uri, what, "written"):
        client().upload_file(str(path), *_split(uri), Config=_transfer())


def names(uri: str, what: str) -> set[str]:
    """Names of all objects under a folder, relative to it."""
    bucket, prefix = _split(uri.rstrip("/") + "/")
    with _told(uri, what, "read"):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])}


def delete(uri: str, what: str) -> None:
    """Remove the object, if it is there."""
    bucket, key = _split(uri)
    with _told(uri, what, "written"):
        client().delete_object(Bucket=bucket, Key=key)


def check_bucket(uri: str, what: str) -> None:
    """Make sure that the folder's bucket is there and lets these credentials in.

    Raises:
        InputError: it is not, or does not.
    """
    with _told(uri, what, "written"):
        client().head_bucket(Bucket=_split(uri)[0])
