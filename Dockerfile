# The server, installed by pip as README's first command does it.
#
#   docker build -t special .
#   docker run -p 8000:8000 -v ./masters:/masters:ro special
#   docker run -p 8000:8000 -v cache:/var/lib/special -e AWS_PROFILE … special serve s3://archive --volume-size 100GiB

# A tag, which moves: for builds that can be repeated, name the digest that `docker buildx imagetools inspect` shows.
FROM python:3.11-slim

WORKDIR /opt/special
# What it depends on has a layer of its own, which a change of the code leaves as it is.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
  > requirements.txt \
 && pip install --no-cache-dir -r requirements.txt
COPY README.md LICENSE ./
COPY special ./special
RUN pip install --no-cache-dir --no-deps .

RUN useradd --uid 10001 --user-group --no-create-home special \
 && install --directory --owner special --group special /var/lib/special /masters
USER 10001:10001

# Renditions and the volume, unless --thumbs and --volume say otherwise.
ENV SPECIAL_HOME=/var/lib/special SPECIAL_HOST=0.0.0.0 SPECIAL_PORT=8000
VOLUME ["/var/lib/special"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['SPECIAL_PORT']}/livez\", timeout=2)"]

ENTRYPOINT ["special"]
CMD ["serve", "/masters"]
