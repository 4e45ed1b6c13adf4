# syntax=docker/dockerfile:1
# The operator's image: Python, the hash-pinned packages, Ergon; no compiler, no shell needed, user 65532.
# In production pin the base by digest too: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:… (docs/install.md).
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/ergon
COPY requirements/ /src/requirements/
RUN /opt/ergon/bin/pip install --require-hashes --only-binary :all: -r /src/requirements/runtime.txt
# Ergon itself is pure Python: packaging it needs hatchling alone, in an environment that is left behind.
COPY pyproject.toml README.md LICENSE /src/
COPY operator/ /src/operator/
RUN pip wheel --no-deps --wheel-dir /wheels /src \
 && /opt/ergon/bin/pip install --no-deps --no-index /wheels/*.whl \
 && /opt/ergon/bin/pip uninstall --yes pip setuptools \
 && /opt/ergon/bin/python -c 'import compileall; compileall.compile_dir("/opt/ergon", quiet=2, workers=0)'

FROM ${BASE}
LABEL org.opencontainers.image.title="ergon" \
      org.opencontainers.image.description="A Kubernetes operator for fleets of specialised models" \
      org.opencontainers.image.source="https://github.com/ergon-dev/ergon" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ergon /opt/ergon
ENV PATH=/opt/ergon/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["ergon"]
CMD ["--help"]
