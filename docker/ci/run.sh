#!/usr/bin/env bash
# Build the images and run the compose file and the Docker runner. Requires a Docker engine, docker-compose 1.29 or
# Compose v2, debootstrap, and this repository's environment (`make .venv/installed`). Nothing is pulled from a registry:
# Debian packages replace the Python image, and rclone's S3 server replaces SeaweedFS.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Use the builder that every engine has.
export DOCKER_BUILDKIT=0
export BASE_IMAGE=rarft-ci/base STORE_IMAGE=rarft-ci/store
export STORE_COMMAND="rclone serve s3 --addr :8333 --auth-key rarft,rarft-secret /data"
export TRAIN_VIDEOS=32 EVAL_VIDEOS=16 OMP_NUM_THREADS=2
flags=(--max_steps 4 --per_device_train_batch_size 2 --num_generations 4)
export TRAINING_FLAGS="${flags[*]}"
out=${1:-out/docker-ci}
if docker compose version > /dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(-p rarft-ci -f docker/compose.yaml)
validate=$(.venv/bin/python -c 'from components.images import VALIDATE_IMAGE; print(VALIDATE_IMAGE)')
steps=$(.venv/bin/python -c 'from components.images import STEPS_IMAGE; print(STEPS_IMAGE)')

echo "== images"
docker/ci/base.sh "$BASE_IMAGE"
docker build -q -f docker/steps.Dockerfile --target validate --build-arg BASE_IMAGE -t "$validate" .
docker build -q -f docker/steps.Dockerfile --build-arg BASE_IMAGE -t "$steps" .
docker build -q -f docker/ci/store.Dockerfile --build-arg BASE_IMAGE -t "$STORE_IMAGE" docker/ci
docker images --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E 'rarft'
docker run --rm "$validate" python -c 'import importlib.util as u; assert u.find_spec("torch") is None, "torch is in it"'
docker run --rm "$steps" rarft --version

echo "== compose: the whole pipeline against an S3 store"
"${compose[@]}" config > /dev/null
trap '"${compose[@]}" down -v > /dev/null 2>&1' EXIT
"${compose[@]}" run --rm local
echo "== compose: a second run reuses all results"
"${compose[@]}" run --rm local 2>&1 | tee "/tmp/rarft-ci-again.$$" | grep '^\['
[ "$(grep -c 'unchanged, reusing the cached result' "/tmp/rarft-ci-again.$$")" = 3 ]
rm "/tmp/rarft-ci-again.$$"

echo "== the same pipeline in processes and in containers"
rm -rf "$out"
.venv/bin/rarft make-dataset --out "$out/sample" --train "$TRAIN_VIDEOS" --eval "$EVAL_VIDEOS"
for runner in subprocess docker; do
    .venv/bin/rarft run --runner "$runner" --annotations "$out/sample/train.json" \
        --eval-annotations "$out/sample/eval.json" --out "$out/$runner" -- "${flags[@]}" | tail -n 24
done
.venv/bin/python docker/ci/compare.py "$out"/{subprocess,docker}/evaluation/metrics.json

echo "== a failed container reports its cause"
echo '[{"video": "a.mp4", "GR' > "$out/sample/bad.json"
code=0
.venv/bin/rarft run --runner docker --preset tiny --annotations "$out/sample/bad.json" --out "$out/bad" || code=$?
[ "$code" = 2 ]
echo "== passed"
