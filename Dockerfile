# Fettle's verbs in one image: docker-compose.yml names which one each service runs.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN python -m venv /opt/fettle && /opt/fettle/bin/pip install --no-cache-dir --upgrade "pip>=25.1"
COPY fettle fettle
COPY ingest ingest
COPY anomaly anomaly
COPY workorders workorders
COPY dispatch dispatch
COPY dashboards dashboards
COPY simulators simulators
RUN /opt/fettle/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM python:3.11-slim
RUN useradd --system --create-home --home-dir /var/lib/fettle fettle
COPY --from=build /opt/fettle /opt/fettle
ENV PATH=/opt/fettle/bin:$PATH PYTHONUNBUFFERED=1 FETTLE_DATA_DIR=/var/lib/fettle
USER fettle
WORKDIR /var/lib/fettle
ENTRYPOINT ["fettle"]
CMD ["--help"]
