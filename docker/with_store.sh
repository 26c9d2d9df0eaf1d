#!/bin/sh
# Waits for the compose file's store, makes the bucket `rarft` there, and runs the command.
set -eu
python - <<'PY'
import time

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from rarft.storage.s3 import client

for attempt in range(60):
    try:
        client().create_bucket(Bucket="rarft")
        break
    except (ConnectionError, HTTPClientError) as error:
        if attempt == 59:
            raise SystemExit(f"the store at {client().meta.endpoint_url} did not answer for a minute ({error})")
        time.sleep(1)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise SystemExit(f"the bucket rarft cannot be made: {error}")
        break
PY
exec "$@"
