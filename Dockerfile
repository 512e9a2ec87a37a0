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
    && install -d -o zturbo -g zturbo /data /loras /weights \
    && python -m venv /opt/zturbo
WORKDIR /srv

# Our own package as a wheel: built apart, so that no build tool stays in the images.
FROM base AS wheel
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY models models
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base AS api
COPY requirements/api.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/api.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8000
ENV ZTURBO_HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["zturbo", "health", "api"]
CMD ["zturbo", "api"]

FROM base AS worker
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements/worker.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/worker.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
# Loading tens of gigabytes of weights takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m \
    CMD ["zturbo", "health", "worker"]
CMD ["zturbo", "worker", "gpu"]
