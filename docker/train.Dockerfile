# The image that trains: `docker run IMAGE train`, as SageMaker starts it. Built by scripts/build.sh (needs BuildKit).
#
#   BASE ── python ─┬─ builder ─── C compiler, uv; makes /opt/venv from train.lock (by hash), compiles it
#                   ├─ program ─── /opt/program and the `train` command
#                   └─ final ───── /opt/venv of builder in three layers, and the program; no compiler, no uv, no caches
#
# Secrets, both optional, there only while the RUN that mounts them runs, in no layer:
#   ca        the CA bundle of a TLS-inspecting proxy
#   packages  shell lines that set PIP_INDEX_URL, UV_DEFAULT_INDEX ...: a company's index, with credentials maybe

# CUDA 13: the torch 2.13 wheels are built for it and bring its libraries, so `base` is enough (no runtime, no devel).
# Any Debian or Ubuntu image with Python 3.11 or 3.12 works, with Python already in it or not.
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE} AS python
COPY docker/install_python.sh /tmp/build/
RUN sh /tmp/build/install_python.sh && rm -r /tmp/build

FROM python AS builder
# gcc and Python's headers: sagemaker-training 4.9.0 comes as source only, with a C extension.
COPY docker/install_builder.sh docker/make_venv.sh docker/uv.lock /tmp/build/
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages \
    sh /tmp/build/install_builder.sh gcc libc6-dev
COPY docker/train.lock docker/trim_train.sh /tmp/build/
# sagemaker-training brings a `train` of its own, which knows no baked-in program and ignores SIGTERM: ours replaces it.
# The two largest folders are set apart, for layers of their own: a registry is sent and asked for layers side by side,
# and packing one takes a core.
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages \
    sh /tmp/build/make_venv.sh /opt/venv /tmp/build/train.lock && rm /opt/venv/bin/train \
    && sh /tmp/build/trim_train.sh /opt/venv \
    && cd /opt/venv/lib/python3*/site-packages \
    && for part in nvidia torch; do mkdir -p "/parts/$part$PWD" && mv "$part" "/parts/$part$PWD/"; done

FROM python AS program
COPY docker/train /out/usr/local/bin/train
COPY LICENSE /out/opt/program/LICENSE
COPY container_serve /out/opt/program/container_serve
COPY container_train /out/opt/program/container_train
RUN chmod 755 /out/usr/local/bin/train \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /out /out/opt/program

FROM python AS final
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/program \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    BYOC_TARGET=train \
    # For a GPU host's container runtime; a CUDA base says the same. It also names the drivers it takes, on which the
    # runtime would refuse to start the container at all: the program says in `failure` what is too old, and what to do.
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_DISABLE_REQUIRE=1
COPY --from=builder /parts/nvidia/ /
COPY --from=builder /parts/torch/ /
COPY --from=builder /opt/venv /opt/venv
COPY --from=program /out/ /
# No entry point, not the base's either: the platform runs `IMAGE train`, and `IMAGE python -m container_train --help` works as well.
ENTRYPOINT []
CMD ["train"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CONTENT=unknown
ARG TARGETARCH
LABEL org.opencontainers.image.title="byoc-train" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      byoc.content="${CONTENT}" \
      byoc.architecture="${TARGETARCH}"
