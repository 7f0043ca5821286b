# The image of the command: a binary that `cargo xtask dist` or `cargo xtask cross` left in
# target/dist; the model is mounted.
#
#   docker build -t agx-ocr .
#   docker run --rm -i -v /path/to/model:/models:ro agx-ocr < page.png
#
# For several architectures, with a binary of each, and qemu for those that this machine is not:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --push -t REGISTRY/agx-ocr .

ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TARGETARCH
RUN --mount=type=bind,source=target/dist,target=/dist \
    case "$TARGETARCH" in amd64) arch=x86_64 ;; arm64) arch=aarch64 ;; *) arch=$TARGETARCH ;; esac \
 && binary=$(ls /dist/agx-ocr-*-"$arch"-unknown-linux-gnu) \
 || { echo "no binary for $arch: first run cargo xtask dist, or cross for ARM64" >&2; exit 1; } \
 && install -m 0755 "$binary" /usr/local/bin/agx-ocr \
 && useradd --system --no-create-home --shell /usr/sbin/nologin agx-ocr

USER agx-ocr
ENV MODEL_PATH=/models
# A binary that cannot start here fails the build, not the first page.
RUN ["agx-ocr", "--describe"]
ENTRYPOINT ["agx-ocr"]
