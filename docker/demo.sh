#!/bin/sh
# What `docker compose run --rm local` does: a synthetic data set in the store, and the whole pipeline on it. Data,
# checkpoints and reports lie in s3://rarft, and a copy of the reports in /scratch/demo.
set -eu
rarft make-dataset --out s3://rarft/sample --train "${TRAIN_VIDEOS}" --eval "${EVAL_VIDEOS}"
exec rarft run --annotations s3://rarft/sample/train.json --eval-annotations s3://rarft/sample/eval.json \
    --out s3://rarft/demo --work-dir /scratch/demo -p also_evaluate=tiny-truthful ${TRAINING_FLAGS:+-- $TRAINING_FLAGS}
