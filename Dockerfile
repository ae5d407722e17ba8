# The explorer for a class: docker build -t explorer . && docker run -p 8501:8501 explorer
# Public limits are on (see docs/serving.md); the program's folder cannot be written to.
FROM python:3.11-slim

RUN useradd --create-home explorer
WORKDIR /explorer

COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY explorer explorer
COPY pages pages
COPY assets assets

USER explorer
ENV EXPLORER_PUBLIC=1 PYTHONUNBUFFERED=1
# Compile the inner loops into the user's cache, so that no visitor waits for them.
RUN python -m explorer run --images 16 --steps 4 --calibration-images 32

EXPOSE 8501
HEALTHCHECK CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=5)"
CMD ["python", "-m", "explorer", "serve", "--port", "8501"]
