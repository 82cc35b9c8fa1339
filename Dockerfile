# The production image: the service and its locked packages, nothing to build with, no stand-ins.
#
#   docker build -t acs-auth .
#   docker run --rm --read-only --env-file .env -p 5000:5000 acs-auth
#   docker run --rm --read-only --env-file .env acs-auth check-config
#
# No BuildKit-only syntax: remote builds of Azure Container Registry lack it.

FROM ghcr.io/astral-sh/uv:0.13.9 AS uv

FROM docker.io/library/python:3.13-slim AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/ requirements/
RUN uv venv --python /usr/local/bin/python3 /venv \
    && uv pip install --python /venv --require-hashes --only-binary :all: --requirement requirements/run.txt
# The build back end is locked, too.
COPY pyproject.toml README.md LICENSE ./
COPY quart_app/ quart_app/
COPY storage/ storage/
COPY upstream/ upstream/
RUN uv build --wheel --require-hashes --build-constraint requirements/dev.txt --python /venv --out-dir dist \
    && uv pip install --python /venv --no-deps dist/*.whl

FROM docker.io/library/python:3.13-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="acs-auth-server" \
      org.opencontainers.image.description="Trusted authentication service for Azure Communication Services" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /venv /venv
# HOME: a user without a home directory; nothing is written anywhere.
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/nonexistent PORT=5000
WORKDIR /nonexistent
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM
# For Docker alone; Container Apps asks the probes of infra/api.bicep.
HEALTHCHECK --interval=30s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/live', timeout=2)"]
ENTRYPOINT ["acs-auth"]
CMD ["serve"]
