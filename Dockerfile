# `models` is what gets served, `kernel` compiles attention's kernels; `runtime`, the image that
# ships, has those and the service, but no PyTorch, no checkpoint and no compiler.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN python -m venv /venv
# Enough to install the dependencies: code comes later, so that changing it installs nothing.
COPY pyproject.toml constraints.txt requirements.py LICENSE ./

# What model_repository/ holds, the bundled models at least. PyTorch is installed in this stage
# only where one of the two arguments asks for an export.
FROM base AS models
# A file in checkpoints/, served under its name beside the bundled models
ARG CHECKPOINT=
# fp16 adds classifiers for GPUs
ARG PRECISION=fp32
RUN if [ "$CHECKPOINT$PRECISION" != fp32 ]; then \
        python requirements.py cpu export >requirements.txt \
        && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt; \
    fi
COPY models models
COPY export export
COPY model_repository model_repository
# As the pattern may match nothing, a file that is always there is copied with it.
COPY LICENSE checkpoint[s] checkpoints/
# For CHECKPOINT alone, such as --arch or --labels
ARG EXPORT_OPTIONS=
RUN set -e; \
    replace() { \
        rm -rf "model_repository/$1"; \
        python -m export "$2" --name "$1" --precision "$PRECISION" $3; \
    }; \
    if [ "$PRECISION" != fp32 ]; then \
        for file in models/zoo/*.safetensors; do replace "$(basename "$file" .safetensors)" "$file"; done; \
    fi; \
    if [ -n "$CHECKPOINT" ]; then \
        replace "${CHECKPOINT%.*}" "checkpoints/$CHECKPOINT" "$EXPORT_OPTIONS"; \
    fi

FROM base AS kernel
ARG EXTRA=cpu
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && if [ "$EXTRA" = gpu ]; then pip install --no-cache-dir $(python requirements.py nvcc); fi
COPY service/__init__.py service/__init__.py
COPY service/native service/native
RUN python -m service.native

FROM base AS runtime
# cpu, or gpu for ONNX Runtime with CUDA and cuDNN as pip packages
ARG EXTRA=cpu
# ray for a cluster
ARG MORE=
RUN python requirements.py "$EXTRA" redis grpc heif otel $MORE >requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY --from=models /app/model_repository model_repository
COPY models/*.py models/
COPY models/imaging models/imaging
COPY service service
COPY --from=kernel /app/service/native/*.so service/native/
ENV DEEPVIT_HOST=0.0.0.0
EXPOSE 8000
# A number, by which Kubernetes can tell that it is not root; it owns no file of the image.
USER 10001:10001
# Without the proxy that Docker may have put into the environment. Any status but 200 raises.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD python -c \
    "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:${DEEPVIT_PORT:-8000}/readyz')"
# No shell in between: SIGTERM reaches the service, which then finishes queued work.
CMD ["python", "-m", "service"]
