#!/bin/sh
# Wait for the compose file's store, create the bucket `rarft`, and run a command.
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
            raise SystemExit(f"{client().meta.endpoint_url}: no response for 60 s ({error}); check the store's log")
        time.sleep(1)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise SystemExit(f"bucket rarft: cannot be created ({error}); check the access key")
        break
PY
exec "$@"
