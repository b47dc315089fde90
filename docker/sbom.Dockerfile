# What is in an image: its components as CycloneDX, their licences, and what is known against them. Built by
# scripts/build.sh after the image itself, which it leaves as it is; only the files of the last stage come out.
#
#   IMAGE ─ tools ─ inspected ─ asked        the image, with the tools from sbom.lock beside its /opt/venv
#   scratch ──────────────────▶ NAME.cdx.json, NAME.licenses.txt, NAME.advisories.*
#
# Secrets, both optional: see serve.Dockerfile.

ARG IMAGE

FROM ${IMAGE} AS tools
USER root
# Before the tools: what they need from Debian is not the image's.
RUN mkdir -p /tmp/build && cp /var/lib/dpkg/status /tmp/build/dpkg.status
COPY docker/install_builder.sh docker/make_venv.sh docker/uv.lock docker/sbom.lock /tmp/build/
RUN --mount=type=secret,id=ca --mount=type=secret,id=packages \
    sh /tmp/build/install_builder.sh && sh /tmp/build/make_venv.sh /opt/sbom /tmp/build/sbom.lock

FROM tools AS inspected
COPY docker/sbom.py /tmp/build/
ARG IMAGE
ARG IMAGE_ID
ARG NAME
RUN /opt/sbom/bin/python /tmp/build/sbom.py --image "${IMAGE}" --image-id "${IMAGE_ID}" \
        --dpkg-status /tmp/build/dpkg.status --out "/out/${NAME}"

FROM inspected AS asked
COPY docker/advisories.py docker/accepted_advisories.txt /tmp/build/
# The time: yesterday's answer is none.
ARG ASKED
ARG OSV_URL
RUN --mount=type=secret,id=ca \
    /opt/sbom/bin/python /tmp/build/advisories.py --asked "${ASKED}" --url "${OSV_URL}" \
        --accepted /tmp/build/accepted_advisories.txt --out "/out/${NAME}"

FROM scratch
COPY --from=asked /out/ /
