# The image of the pipeline's steps on a CPU: validate, embed, train the tiny model, evaluate.
# Build from the repository's root: docker build -f docker/python.Dockerfile -t ghcr.io/rarft/rarft-python:0.1.0 .
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
WORKDIR /opt/rarft
COPY pyproject.toml README.md LICENSE ./
COPY rarft rarft
COPY components components
COPY pipelines pipelines
# kfp is among the extras: the components are compiled without installing it at run time.
RUN python -m pip install --no-cache-dir '.[all]'
ENV OMP_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false HOME=/tmp
USER 10001
ENTRYPOINT ["rarft"]
