# Training and evaluation on GPUs. Build from the repository's root:
#   docker build -f docker/train.Dockerfile -t rarft-train:0.1.0 .
#   docker build -f docker/train.Dockerfile --build-arg LOCK=vllm -t rarft-vllm:0.1.0 .
# The second includes vLLM for rollouts and predictions; it requires an older torch and therefore a separate lock.
ARG BASE_IMAGE=nvidia/cuda:13.0.1-cudnn-devel-ubuntu24.04
FROM ${BASE_IMAGE}

# The CUDA image does not include Python.
RUN python3 -m ensurepip --version || { \
        apt-get update \
        && apt-get install -y --no-install-recommends python3-dev python3-venv g++ \
        && rm -rf /var/lib/apt/lists/*; \
    }
# pip cannot replace the distribution's packages.
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH}

ARG LOCK=train
COPY docker/locks/${LOCK}.txt /opt/rarft/lock.txt
RUN python -m pip install --no-cache-dir -r /opt/rarft/lock.txt

# Compile DeepSpeed's optimizers here instead of in each job. Architectures: A100, H100.
ARG CUDA_OPS=1
ARG TORCH_CUDA_ARCH_LIST="8.0 9.0"
ARG MAX_JOBS=8
RUN if [ "${CUDA_OPS}" = 1 ]; then \
        python -m pip install --no-cache-dir setuptools wheel ninja packaging \
        && DS_BUILD_FUSED_ADAM=1 DS_BUILD_CPU_ADAM=1 python -m pip install --no-cache-dir --no-build-isolation \
            --no-deps --force-reinstall --no-binary deepspeed "$(grep '^deepspeed==' /opt/rarft/lock.txt)"; \
    fi

COPY pyproject.toml README.md LICENSE /opt/rarft/
COPY rarft /opt/rarft/rarft
COPY components /opt/rarft/components
COPY pipelines /opt/rarft/pipelines
COPY docker/with_store.sh /opt/rarft/
RUN python -m pip install --no-cache-dir --no-deps /opt/rarft && mkdir -p /scratch && chmod 1777 /scratch
USER 10001
ENV HOME=/tmp USER=rarft LOGNAME=rarft PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
WORKDIR /scratch
CMD ["rarft", "--help"]
