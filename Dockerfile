# `export` turns the bundled checkpoints into served models with PyTorch, `kernel` compiles
# attention's kernels; `runtime`, the image that ships, has those and the service, but no PyTorch, no
# checkpoint and no compiler.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN python -m venv /venv
# Enough to install the dependencies: code comes later, so that changing it installs nothing.
COPY pyproject.toml constraints.txt LICENSE ./

FROM base AS export
RUN pip install --no-cache-dir --constraint constraints.txt '.[cpu,export]'
COPY models models
COPY export export
# fp16 adds classifiers for GPUs
ARG PRECISION=fp32
RUN for checkpoint in models/zoo/*.safetensors; do \
        python -m export "$checkpoint" --name "$(basename "$checkpoint" .safetensors)" \
            --precision "$PRECISION" --output /model_repository || exit 1; \
    done

FROM base AS kernel
ARG EXTRA=cpu
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && if [ "$EXTRA" = gpu ]; then pip install --no-cache-dir '.[nvcc]'; fi
COPY service/__init__.py service/__init__.py
COPY service/native service/native
RUN python -m service.native

FROM base AS runtime
# cpu, or gpu for ONNX Runtime with CUDA and cuDNN as pip packages
ARG EXTRA=cpu
# The import fails the build where EXTRA is misspelt, of which pip only warns.
RUN pip install --no-cache-dir --constraint constraints.txt ".[$EXTRA,redis,grpc,otel]" \
    && ORT_DISABLE_TELEMETRY=1 python -c 'import onnxruntime' \
    && rm -rf build *.egg-info
COPY --from=export /model_repository model_repository
COPY models/*.py models/
COPY service service
COPY --from=kernel /app/service/native/*.so service/native/
# matplotlib wants to write; /tmp can be a tmpfs where the root file system is read-only.
ENV DEEPVIT_HOST=0.0.0.0 MPLCONFIGDIR=/tmp
EXPOSE 8000
# A number, by which Kubernetes can tell that it is not root; it owns no file of the image.
USER 10001:10001
# Without the proxy that Docker may have put into the environment. Any status but 200 raises.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD python -c \
    "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:${DEEPVIT_PORT:-8000}/readyz')"
# No shell in between: SIGTERM reaches the service, which then finishes queued work.
CMD ["python", "-m", "service"]
