# An image with the project and its environment, which `python -m train jobset --image` can use.
#
#   docker build --tag arch-scaling .                            CPU
#   docker build --tag arch-scaling --build-arg EXTRA=[cuda] .   NVIDIA GPUs
#   docker build --tag arch-scaling --build-arg EXTRA=[tpu] .    TPUs
FROM python:3.11-slim-bookworm
ARG EXTRA=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /project
COPY . .
RUN pip install --constraint constraints.txt --editable ".${EXTRA}"
CMD ["python", "-m", "arch_zoo", "list"]
