# One image for every service: `penstock service NAME` chooses. Versions of packages are those of requirements.txt.
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY events events
COPY triggers triggers
COPY automations automations
COPY flows flows
COPY services services
RUN python -m venv /opt/penstock \
 && /opt/penstock/bin/pip install --no-cache-dir --constraint requirements.txt ".[server]"

FROM python:3.12.11-slim-bookworm
RUN useradd --create-home --uid 10001 penstock
COPY --from=build /opt/penstock /opt/penstock
COPY deploy/healthcheck.py /opt/penstock/healthcheck.py
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1
USER penstock
# Rules, flows and penstock.yaml are mounted here.
WORKDIR /project
ENTRYPOINT ["penstock"]
CMD ["--help"]
