"""The analysis gives the same answers on every processor.

Its tests run with the kernels that OpenBLAS would choose on other processors. Sums of different
kernels differ in their last digits. A fit that the data do not determine may then end elsewhere;
but no command may fail because of that, and no determined answer may change.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = [
    "Haswell-2",
    "SkylakeX-1",
    "Prescott-1",
]  # kernel and threads; most AMD processors use Haswell's or Zen's
ALSO_CALLED = {
    "Prescott": ("Katmai",)
}  # an older processor, whose name OpenBLAS finds first for the same kernels
NOTHING_TO_SUM = ("data", "report", "test_notebook.py")
_ASK = """
import json, numpy, threadpoolctl
numpy.linalg.svd(numpy.eye(64))
(library,) = [one for one in threadpoolctl.threadpool_info() if one["internal_api"] == "openblas"]
print(json.dumps([library["architecture"], library["num_threads"]]))
"""


def _environment(kernel: str, threads: str) -> dict[str, str]:
    plain = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTEST_", "OPENBLAS_"))
    }
    return plain | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": threads}


def _kernel(environment: dict[str, str]) -> list:
    """The kernel of NumPy's BLAS and its number of threads."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(asked.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("variant", KERNELS)
def test_the_analysis_holds_under_other_kernels(variant):
    kernel, threads = variant.split("-")
    environment = _environment(kernel, threads)
    if kernel == "SkylakeX" and "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX-512, without which SkylakeX's kernels crash")
    if _kernel(dict(os.environ)) == [kernel, int(threads)]:
        pytest.skip(f"all tests run with {kernel}'s kernels in {threads} threads here")
    found, _ = _kernel(environment)
    if found not in (kernel, *ALSO_CALLED.get(kernel, ())):
        pytest.skip(f"NumPy's BLAS has no {kernel} kernels here, but {found}'s")
    # Tests that are slow elsewhere draw figures or measure times, and the slow tests of laws fit
    # what the data do not determine.
    computing = [
        "tests/eval",
        "-m",
        "not slow",
        *(f"--ignore=tests/eval/{name}" for name in NOTHING_TO_SUM),
    ]
    others = [
        ["tests/eval/laws/test_cli.py", "-m", "slow"],
        ["tests/eval/report/test_kept_report.py"],
    ]
    for chosen in (computing, *others):
        command = [sys.executable, "-m", "pytest", *chosen, "-q", "-x", "-p", "no:cacheprovider"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:]
