# The images without a GPU, built from the repository's root:
#   docker build -f docker/steps.Dockerfile --target validate -t ghcr.io/rarft/rarft-validate:0.1.0 .
#   docker build -f docker/steps.Dockerfile -t ghcr.io/rarft/rarft-steps:0.1.0 .
# Any base with Python 3.11 and pip will do; versions are pinned in docker/locks (`make locks`).
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS validate-packages
COPY docker/locks/validate.txt /opt/rarft/validate.txt
RUN python -m pip install --no-cache-dir -r /opt/rarft/validate.txt

# What validates, and compiles and submits pipelines: no torch.
FROM validate-packages AS validate
COPY pyproject.toml README.md LICENSE /opt/rarft/
COPY rarft /opt/rarft/rarft
COPY components /opt/rarft/components
COPY pipelines /opt/rarft/pipelines
RUN python -m pip install --no-cache-dir --no-deps /opt/rarft && mkdir -p /scratch && chmod 1777 /scratch
# Numeric, so that Kubernetes can tell it is not root; libraries ask for a name and a home.
USER 10001
ENV HOME=/tmp USER=rarft LOGNAME=rarft PYTHONUNBUFFERED=1
WORKDIR /scratch
CMD ["rarft", "--help"]

FROM validate-packages AS steps-packages
COPY docker/locks/steps.txt /opt/rarft/steps.txt
# Address of PyTorch's wheels for CPUs, which its installation page names; without it the wheels come with CUDA's
# libraries, and the image is three times the size.
ARG TORCH_INDEX=
RUN python -m pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -r /opt/rarft/steps.txt

# Every step on a CPU.
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
