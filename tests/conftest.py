"""The environment of every test: only the CPU, and a compilation cache kept between runs."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

# Before anything imports jax, and inherited by the processes that tests start. JAX writes its
# entries in place, so two workers must not share them, although they inherit the main process's.
_CACHES = Path(__file__).resolve().parent.parent / ".cache" / "jax"
if os.environ.get("JAX_COMPILATION_CACHE_DIR") in (None, str(_CACHES / "main")):
    _OWN = _CACHES / os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_OWN)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Tests compile much and compute little. Without optimisations, and with XLA's older code generators
# (removed in jaxlib 0.11), they take a fifth of the time.
_OLDER = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if _OLDER else ""
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0" + _EMITTERS)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="module", autouse=True)
def bounded_number_of_executables():
    """Frees the compiled programs of a module after its tests.

    A process crashes after some thousands of them.
    """
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Gives all tests of a module to one worker, so that they share what they compile.

    The contract's variants are distributed one by one. The longest tests come first, because they
    would otherwise run alone at the end.
    """
    first = ("tests/train/", "tests/eval/test_kernels.py")
    items.sort(key=lambda item: not item.nodeid.startswith(first))
    for item in items:
        variant = getattr(item, "callspec", None) and item.callspec.params.get("variant")
        item.add_marker(
            pytest.mark.xdist_group(f"{item.path.stem}-{variant}" if variant else str(item.path))
        )


def pytest_addoption(parser):
    """Adds the option that rewrites the goldens."""
    parser.addoption(
        "--rewrite-goldens", action="store_true", help="write tests/arch_zoo/goldens anew"
    )
