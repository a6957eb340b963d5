# One image for every service; the command chooses: python -m dicom_listener, countersign db upgrade, ...
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core fonts-droid-fallback \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home countersign \
 && install -d -o countersign -g countersign /var/lib/countersign

WORKDIR /opt/countersign
# The dependencies are a layer of their own: a change of our code does not install them again.
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      print(*project['dependencies'], *project['optional-dependencies']['distributed'], sep='\n')" \
      > /tmp/requirements.txt \
 && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps .

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    COUNTERSIGN_DATA_DIR=/var/lib/countersign \
    COUNTERSIGN_MODELS_DIR=/opt/countersign/models
USER 10001
VOLUME /var/lib/countersign
CMD ["countersign", "--help"]
