# Images without GPU support. Build from the repository's root:
#   docker build -f docker/steps.Dockerfile --target validate -t rarft-validate:0.1.0 .
#   docker build -f docker/steps.Dockerfile -t rarft-steps:0.1.0 .
# Any base image with Python 3.11 and pip works. Versions are pinned in docker/locks (`make locks`).
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS validate-packages
COPY docker/locks/validate.txt /opt/rarft/validate.txt
RUN python -m pip install --no-cache-dir -r /opt/rarft/validate.txt

# Validation, and compiling and submitting pipelines: no torch.
FROM validate-packages AS validate
COPY pyproject.toml README.md LICENSE /opt/rarft/
COPY rarft /opt/rarft/rarft
COPY components /opt/rarft/components
COPY pipelines /opt/rarft/pipelines
RUN python -m pip install --no-cache-dir --no-deps /opt/rarft && mkdir -p /scratch && chmod 1777 /scratch
# Numeric, so that Kubernetes can verify that it is not root. Libraries require a name and a home folder.
USER 10001
ENV HOME=/tmp USER=rarft LOGNAME=rarft PYTHONUNBUFFERED=1
WORKDIR /scratch
CMD ["rarft", "--help"]

FROM validate-packages AS steps-packages
COPY docker/locks/steps.txt /opt/rarft/steps.txt
# Index of PyTorch's CPU wheels (see its installation page). Default wheels include CUDA and triple the image's size.
ARG TORCH_INDEX=
RUN python -m pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -r /opt/rarft/steps.txt

# All steps on a CPU.
FROM steps-packages AS steps
COPY pyproject.toml README.md LICENSE /opt/rarft/
COPY rarft /opt/rarft/rarft
COPY components /opt/rarft/components
COPY pipelines /opt/rarft/pipelines
COPY docker/demo.sh docker/with_store.sh /opt/rarft/
RUN python -m pip install --no-cache-dir --no-deps /opt/rarft && mkdir -p /scratch && chmod 1777 /scratch
USER 10001
ENV HOME=/tmp USER=rarft LOGNAME=rarft PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
WORKDIR /scratch
CMD ["rarft", "--help"]
