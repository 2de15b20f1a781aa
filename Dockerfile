# The image of every dermq service; docker-compose.yml says which command each one runs.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Without pip inside: the base image's installs into it, and the final stage gets only what runs.
RUN python -m venv --without-pip /opt/dermq
WORKDIR /build
# Before the code, so that a change of the code does not install the dependencies again. Wheels only: what has none
# for this platform fails here, and no stage needs a compiler.
COPY requirements/run.txt requirements/
RUN pip --python /opt/dermq/bin/python install --require-hashes --only-binary :all: -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY db db
COPY worker worker
COPY trainer trainer
# The bundle travels inside the wheel.
COPY models models
# Without isolation: the build backend is among the pins, and nothing unpinned is fetched.
RUN pip --python /opt/dermq/bin/python install --no-deps --no-build-isolation .

FROM python:3.12-slim
# A fixed number, so that an archive on the host can be made readable to it.
RUN groupadd --gid 10001 dermq \
    && useradd --uid 10001 --gid dermq --home-dir /var/lib/dermq --no-create-home --shell /usr/sbin/nologin dermq \
    && install --directory --owner=dermq --group=dermq --mode=0700 /var/lib/dermq
# The same path as in the first stage: scripts and compiled files name it.
COPY --from=build /opt/dermq /opt/dermq
ENV PATH=/opt/dermq/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DERMQ_HOME=/var/lib/dermq
WORKDIR /var/lib/dermq
# By number: an orchestrator that forbids root can tell without looking into the image.
USER 10001:10001
ENTRYPOINT ["dermq"]
