#!/bin/sh
# What `docker compose run --rm local` does: a synthetic data set in the store, and the whole pipeline on it. Data,
# checkpoints and reports lie in s3://rarft, and a copy of the reports in /work/demo.
set -eu

python - <<'PY'
import time

from botocore.exceptions import ClientError, EndpointConnectionError

from rarft.objects import client

for attempt in range(60):
    try:
        client().create_bucket(Bucket="rarft")
        break
    except EndpointConnectionError:
        if attempt == 59:
            raise SystemExit(f"the store at {client().meta.endpoint_url} did not answer for a minute")
        time.sleep(1)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise SystemExit(f"the bucket rarft cannot be made: {error}")
        break
PY

rarft sample --out s3://rarft/sample --train "${TRAIN_VIDEOS}" --eval "${EVAL_VIDEOS}"
exec rarft run --annotations s3://rarft/sample/train.json --eval-annotations s3://rarft/sample/eval.json \
    --out s3://rarft/demo --scratch /work/demo ${TRAINING_FLAGS:+-- $TRAINING_FLAGS}
