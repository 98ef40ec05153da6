# daos with GraphiQL's page and an ssh client, as a user of its own.

# Tags move: docs/operations.md says how to give the digests that you have checked.
ARG NODE_IMAGE=node:22-bookworm-slim
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${NODE_IMAGE} AS explorer
WORKDIR /src
COPY scripts/explorer scripts/
COPY explorer explorer/
RUN scripts/explorer

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /srv/daos && /srv/daos/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY daos daos/
COPY schema schema/
COPY resolvers resolvers/
COPY runner runner/
COPY db db/
COPY ansible ansible/
COPY --from=explorer /src/daos/explorer daos/explorer/
RUN /srv/daos/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client \
    && rm -rf /var/lib/apt/lists/*
# ssh refuses to run for a user without a name.
RUN groupadd --gid 10001 daos \
    && useradd --uid 10001 --gid daos --home-dir /var/lib/daos --no-create-home --shell /usr/sbin/nologin daos \
    && install --directory --owner daos --group daos --mode 0700 /var/lib/daos
COPY --from=build /srv/daos /srv/daos
ENV PATH=/srv/daos/bin:$PATH DAOS_DATA_DIR=/var/lib/daos
USER 10001:10001
WORKDIR /var/lib/daos
ENTRYPOINT ["daos"]
CMD ["serve", "--host", "0.0.0.0"]
