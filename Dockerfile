# Two images from one file: `--target api` (API and CPU workers, no torch) and `--target worker` (GPU workers; torch's
# own wheels bring CUDA, so the base is the same slim one).

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/zturbo/bin:$PATH \
    ZTURBO_LOG_FORMAT=json \
    ZTURBO_DATA_DIR=/data \
    ZTURBO_LORA_DIR=/loras \
    HF_HOME=/weights
RUN useradd --uid 10001 --user-group --create-home zturbo \
    && install -d -o zturbo -g zturbo /data /loras /weights /srv \
    && python -m venv --without-pip /opt/zturbo
WORKDIR /srv
# The base's pip installs into it, so that no second one stays in the images.
ENV PIP_PYTHON=/opt/zturbo/bin/python

# Our own package as a wheel: built apart, so that no build tool stays in the images.
FROM base AS wheel
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY models models
COPY docs docs
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base AS api
COPY requirements/api.txt requirements/
# Without what only compilers and type checkers read.
RUN pip install --no-cache-dir --require-hashes -r requirements/api.txt \
    && find /opt/zturbo -type d \( -name tests -o -name f2py -o -name distutils \) -prune -exec rm -r {} + \
    && find /opt/zturbo \( -name '*.a' -o -name '*.h' -o -name '*.pyi' -o -name '*.pxd' \) -delete
# Of the demo model's weights it reads the LoRAs; the worker's image draws.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl \
    && find /opt/zturbo -path '*/demo_weights/*.safetensors' ! -path '*/loras/*' -delete
USER 10001:10001
EXPOSE 8000
ENV ZTURBO_HOST=0.0.0.0
HEALTHCHECK --interval=30s --timeout=15s --start-period=1m \
    CMD ["python", "-m", "app.health", "api"]
CMD ["zturbo", "api"]

FROM base AS worker
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TRITON_CACHE_DIR=/tmp/triton \
    ZTURBO_HOST=0.0.0.0
# torch.compile and Triton make their kernels with a compiler, here, for the card that is there.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/worker.txt requirements/
# TORCH_INDEX: an index with other wheels of torch, such as those for machines without NVIDIA's GPUs, which have no hashes here.
ARG TORCH_INDEX
RUN if [ -z "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --require-hashes -r requirements/worker.txt; \
    else \
        sed -E '/^ *--hash/d; /^(nvidia|cuda|triton)/d; s/ *\\$//' requirements/worker.txt > /tmp/worker.txt \
        && pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r /tmp/worker.txt; \
    fi \
    && find /opt/zturbo -name '*.a' -delete \
    && find /opt/zturbo -type d -name tests -prune -exec rm -r {} +
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
# Loading tens of gigabytes of weights takes minutes.
HEALTHCHECK --interval=30s --timeout=15s --start-period=15m \
    CMD ["python", "-m", "app.health", "worker"]
CMD ["zturbo", "worker", "gpu"]
