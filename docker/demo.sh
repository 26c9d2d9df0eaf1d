#!/bin/sh
# Command of `docker compose run --rm local`: make a synthetic data set in the store and run the whole pipeline on it.
# Data, checkpoints and reports are in s3://rarft, and a copy of the reports is in /scratch/demo.
set -eu
rarft make-dataset --out s3://rarft/sample --train "${TRAIN_VIDEOS}" --eval "${EVAL_VIDEOS}"
exec rarft run --annotations s3://rarft/sample/train.json --eval-annotations s3://rarft/sample/eval.json \
    --out s3://rarft/demo --work-dir /scratch/demo -p compare=tiny-truthful ${TRAINING_FLAGS:+-- $TRAINING_FLAGS}
