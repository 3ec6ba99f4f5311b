# HaleBrain as a BIDS App. No image is published, and continuous integration does not build this one: it checks the file only.
#   docker build --tag halebrain-bids .
#   docker run --rm --network none --user "$(id -u):$(id -g)" --volume DATA:/data:ro --volume OUT:/out halebrain-bids /data /out participant
# Building fetches packages; running fetches nothing. For a GPU, give the index of your CUDA version:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 --tag halebrain-bids .
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
# PyPI's torch for Linux brings gigabytes of CUDA libraries; this index has the one for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/halebrain \
    && /opt/halebrain/bin/pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" torch \
    && /opt/halebrain/bin/pip install --no-cache-dir --constraint constraints.txt ".[bids]"

FROM python:3.12-slim
LABEL org.opencontainers.image.title="HaleBrain" \
      org.opencontainers.image.description="Finds what is abnormal in a brain MRI: a BIDS App. Research use only; not a medical device." \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The HaleBrain developers"
COPY --from=build /opt/halebrain /opt/halebrain
# Every user may write here (`docker run --user`); models that are imported need a volume.
RUN useradd --uid 1000 --create-home halebrain && install --directory --mode=1777 /var/lib/halebrain
ENV PATH=/opt/halebrain/bin:$PATH \
    HALEBRAIN_HOME=/var/lib/halebrain \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /tmp
ENTRYPOINT ["halebrain", "bids"]
