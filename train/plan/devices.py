"""The speed, memory and price of devices, from data sheets and price lists, for `plan`.

If a device is calibrated, `plan` uses its measured speed instead.
"""

import dataclasses

from train.records import InputError
from train.run.tracking import PEAK_FLOPS

GB = 10**9


@dataclasses.dataclass(frozen=True)
class Device:
    """One accelerator as JAX counts them (a core of TPU v3, a chip of later TPUs), or one CPU core.

    Attributes:
      name: its name on the command line.
      flops: dense peak in FLOP/s with bfloat16 inputs, from the maker's data sheet.
      float32: share of that peak that float32 models can reach.
      memory: bytes of memory.
      mfu: share of the peak that training reaches; see `source`.
      setup: seconds of a cell that are not spent on steps (start, compilation, evaluation).
      dollars: list price of an hour on demand; 0 if it costs nothing.
      source: where `mfu` and `dollars` are from.
      kind: JAX's name of the device, under which its calibration is stored.
      layer_seconds: the least time of a layer in a training step, however small the model is: its
        kernels have to be started one after another.
    """

    name: str
    flops: float
    float32: float
    memory: float
    mfu: float
    setup: float
    dollars: float
    source: str
    kind: str = ""
    layer_seconds: float = 0.0

    @property
    def is_gpu(self) -> bool:
        """Whether cuDNN's fused attention can run on it."""
        return self.kind.startswith("NVIDIA")


# Prices change and differ between regions. These are Google Cloud's in 2025, on demand; `--price`
# replaces them.
_PRICE = "price: Google Cloud on demand in 2025, or your --price"
_GPU = f"MFU of published encoder-decoder runs on A100 (FAT5, NeMo T5: 11-50 %); {_PRICE}"
_TPU = f"MFU assumed; {_PRICE}"


# A training step of base-NL4 has 919 kernels on an H200 (BENCHMARKS.md), 115 for each of its eight
# layers. A kernel takes at least about 4 microseconds to start and end.
_GPU_LAYER = 115 * 4e-6


def _gpu(name: str, kind: str, memory: float, dollars: float) -> Device:
    return Device(name, PEAK_FLOPS[kind], 0.5, memory, 0.30, 120, dollars, _GPU, kind, _GPU_LAYER)


def _tpu(name: str, kind: str, memory: float, dollars: float) -> Device:
    return Device(name, PEAK_FLOPS[kind], 1.0, memory, 0.35, 180, dollars, _TPU, kind)


DEVICES = {
    device.name: device
    for device in (
        Device(
            "cpu",
            100e9,
            1.0,
            4 * GB,
            0.15,
            30,
            0,
            "one core, a guess: `plan STUDY --calibrate` measures it",
            "cpu",
        ),
        _gpu("h100", "NVIDIA H100 80GB HBM3", 80 * GB, 11.06),
        _gpu("h200", "NVIDIA H200", 141 * GB, 10.60),
        _gpu("a100-80", "NVIDIA A100-SXM4-80GB", 80 * GB, 5.07),
        _gpu("a100-40", "NVIDIA A100-SXM4-40GB", 40 * GB, 3.67),
        _tpu("tpu-v3", "TPU v3", 16 * GB, 1.00),
        _tpu("tpu-v4", "TPU v4", 32 * GB, 3.22),
        _tpu("tpu-v5e", "TPU v5 lite", 16 * GB, 1.20),
        _tpu("tpu-v5p", "TPU v5", 95 * GB, 4.20),
        _tpu("tpu-v6e", "TPU v6 lite", 32 * GB, 2.70),
    )
}


def get(name: str) -> Device:
    """The device with that name.

    Raises:
      InputError: there is none.
    """
    if name not in DEVICES:
        raise InputError(f"device {name!r} is unknown; known: {', '.join(DEVICES)}")
    return DEVICES[name]
