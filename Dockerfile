# An image of txregistry, made of the wheel that this source tree gives.
#
#     docker build -t txregistry .
#     docker run -p 5000:5000 -v registry:/var/lib/txregistry txregistry
#
# BASE may be any image of Debian's family with Python 3.11 or newer and its venv module.

ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
COPY . /source
RUN python3 -m venv /opt/txregistry \
    && /opt/txregistry/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /source \
    && /opt/txregistry/bin/pip install --no-cache-dir "$(echo /wheel/txregistry-*.whl)[all]"

FROM ${BASE}
# A number of its own, so that the owner of a volume is the same in every version of the image.
RUN useradd --system --uid 5000 --user-group --home-dir /var/lib/txregistry --shell /usr/sbin/nologin txregistry \
    && install --directory --owner txregistry --group txregistry /var/lib/txregistry
COPY --from=build /opt/txregistry /opt/txregistry
COPY conf/container.yml /etc/txregistry/config.yml
ENV PATH=/opt/txregistry/bin:$PATH PYTHONUNBUFFERED=1
USER txregistry
WORKDIR /var/lib/txregistry
VOLUME /var/lib/txregistry
EXPOSE 5000
# SIGTERM lets commits end. Docker kills after ten seconds: a busy registry wants `--stop-timeout 60`.
CMD ["twistd", "-n", "--pidfile=", "registry"]
