# The images that serve: `docker run IMAGE serve`, as SageMaker starts it. Built by scripts/build.sh (needs BuildKit).
#
#   BASE ── python ─┬─ builder ─────── uv; makes /opt/venv from serve.lock (by hash), compiles it
#                   │    ├─ builder-serve   without what no request touches
#                   │    ├─ builder-torch   the same with CPU torch, for artifacts with code of their own
#                   ├─ frontend ────── JDK, Maven; builds and tests the Java front end, and jlinks a Java runtime
#                   ├─ program ─────── /opt/program with that jar and its libraries, /opt/java, and the `serve` command
#                   └─ runtime ─┬─ serve-torch   second target: /opt/venv of builder-torch, and the program
#                               └─ serve         default target: /opt/venv of builder-serve, and the program;
#                                                no torch, no CUDA, no compiler, no JDK, no uv
#
# The last step of both targets compares what is in the image with docker/versions/lowest.toml, without any network.
#
# Secrets, all optional, there only while the RUN that mounts them runs, in no layer:
#   ca        the CA bundle of a TLS-inspecting proxy
#   packages  shell lines that set PIP_INDEX_URL, UV_DEFAULT_INDEX ...: a company's index, with credentials maybe
#   maven     a Maven settings.xml: a company's mirror, with credentials maybe

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS python
COPY docker/install_python.sh /tmp/build/
RUN sh /tmp/build/install_python.sh && rm -r /tmp/build

FROM python AS builder
COPY docker/install_builder.sh docker/make_venv.sh docker/uv.lock /tmp/build/
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages \
    sh /tmp/build/install_builder.sh
COPY docker/serve.lock /tmp/build/
# OpenVINO's plugins for GPUs and NPUs (51 MB) never run on a serving host's CPU; its wheel for ARM has none (-f).
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages \
    sh /tmp/build/make_venv.sh /opt/venv /tmp/build/serve.lock \
    && rm -f /opt/venv/lib/python3.*/site-packages/openvino/libs/libopenvino_intel_gpu_plugin.so \
          /opt/venv/lib/python3.*/site-packages/openvino/libs/libopenvino_intel_npu_plugin.so \
          /opt/venv/lib/python3.*/site-packages/openvino/libs/cache.json

# The front end has its own copy of multi-model-server's jar, without the old netty and log4j.
FROM builder AS builder-lean
RUN rm /opt/venv/lib/python3.*/site-packages/mms/frontend/model-server.jar

# What no request touches: scipy (sagemaker-inference's decoder, which we keep out of reach of callers, imports it), what
# sagemaker-inference's and multi-model-server's own start-up imports (we start the Java server ourselves), and OpenVINO's
# readers of other formats and virtual devices. serve-torch keeps them, for programs of the user's own.
FROM builder-lean AS builder-serve
RUN cd /opt/venv/lib/python3.*/site-packages \
    && rm -r scipy scipy.libs boto3 botocore s3transfer jmespath dateutil urllib3 retrying.py \
          setuptools pkg_resources _distutils_hack distutils-precedence.pth \
          future past libfuturize libpasteurize model_archiver \
    && cd openvino/libs \
    && rm libopenvino_onnx_frontend.so.* libopenvino_tensorflow_frontend.so.* libopenvino_pytorch_frontend.so.* \
          libopenvino_paddle_frontend.so.* libopenvino_gguf_frontend.so.* libopenvino_tensorflow_lite_frontend.so.* \
          libopenvino_jax_frontend.so.* libopenvino_auto_plugin.so libopenvino_hetero_plugin.so \
          libopenvino_auto_batch_plugin.so

FROM builder-lean AS builder-torch
COPY docker/serve-torch.lock /tmp/build/
# An index with a folder `torch`: the package registry has no CPU build of torch for Linux.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages \
    sh /tmp/build/make_venv.sh /opt/venv /tmp/build/serve-torch.lock --find-links "${TORCH_INDEX%/}/torch/"

FROM python AS frontend
# Slim bases leave out the folder of manual pages, in which the JDK's packages want to make links.
RUN mkdir -p /usr/share/man/man1 && apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends openjdk-17-jdk-headless maven
# A Java runtime from the JDK that the distribution patches: half the size of a whole one. log4j wants java.desktop.
RUN jlink --add-modules java.base,java.desktop,java.logging,java.management,java.naming,java.sql,java.xml,jdk.unsupported \
        --strip-java-debug-attributes --no-header-files --no-man-pages --compress=2 --output /opt/java
# The repository holds the compiled jar too, for runs without Docker; the image's is made from its sources here.
COPY --from=builder /opt/venv /opt/venv
COPY container_serve /src/container_serve
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages --mount=type=secret,id=maven \
    cd /src && rm -rf container_serve/frontend/frontend.jar container_serve/frontend/lib && set -- \
    && if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && if [ -s /run/secrets/maven ]; then set -- --settings /run/secrets/maven; fi \
    && PYTHONDONTWRITEBYTECODE=1 /opt/venv/bin/python -m container_serve.frontend.build "$@" --lib container_serve/frontend/lib \
    && rm -r container_serve/frontend/src container_serve/frontend/pom.xml container_serve/frontend/maven.lock

FROM python AS program
COPY LICENSE /out/opt/program/LICENSE
COPY docker/serve /out/usr/local/bin/serve
COPY --from=frontend /opt/java /out/opt/java
COPY --from=frontend /src/container_serve /out/opt/program/container_serve
RUN chmod 755 /out/usr/local/bin/serve \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /out /out/opt/program

FROM python AS runtime
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/program \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
EXPOSE 8080
# No entry point, not the base's either: the platform runs `IMAGE serve`, and `IMAGE python -m container_serve --help` works as well.
ENTRYPOINT []
CMD ["serve"]
# byoc.format-version: the newest model.json that this image reads; scripts/deploy.py asks for it before it deploys.
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true" \
      byoc.format-version="1"

FROM runtime AS serve-torch
ENV BYOC_TARGET=serve-torch
COPY --from=builder-torch /opt/venv /opt/venv
COPY --from=program /out/ /
# Java's classes, read and checked now and not at every start: holds for these files at these paths only.
RUN python -m container_serve.frontend.archive
RUN --mount=type=bind,source=docker/versions,target=/mnt python /mnt/check.py
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CONTENT=unknown
ARG TARGETARCH
LABEL org.opencontainers.image.title="byoc-serve-torch" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      byoc.content="${CONTENT}" \
      byoc.architecture="${TARGETARCH}"

FROM runtime AS serve
ENV BYOC_TARGET=serve
COPY --from=builder-serve /opt/venv /opt/venv
COPY --from=program /out/ /
# Java's classes, read and checked now and not at every start: holds for these files at these paths only.
RUN python -m container_serve.frontend.archive
RUN --mount=type=bind,source=docker/versions,target=/mnt python /mnt/check.py
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CONTENT=unknown
ARG TARGETARCH
LABEL org.opencontainers.image.title="byoc-serve" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      byoc.content="${CONTENT}" \
      byoc.architecture="${TARGETARCH}"
