"""What `plan` says, against cases that can be computed by hand, and its counts against whole traces."""

import dataclasses
import json
import math

import pytest

import arch_zoo
from arch_zoo import memory
from tests.train import make_counts
from tests.train.tiny_study import run as tiny
from train import calibrate, counts, declare, devices, plan, study, study_verbs
from train.__main__ import main
from train.calibrate import Calibration
from train.config import StudyConfig
from train.records import InputError

VOCAB = 296
GB = 10**9


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the cache of counts is that of the directory


def _study(*cells):
    return StudyConfig("small", cells or (tiny("transformer"),), corpus="nowhere", platform="cpu")


def test_totals_are_what_a_hand_computes():
    cell = tiny("transformer")
    device = devices.Device("slow", flops=1e9, float32=1.0, memory=GB, mfu=0.5, setup=7.0, dollars=3.6, source="none")
    made = plan.make(_study(cell, dataclasses.replace(cell, seed=1)), VOCAB, device, devices=2)
    cfg = declare.model(cell, VOCAB, accelerator=True)
    forward = arch_zoo.count_flops(cfg, 24, 12).forward
    one = made.cells[0]
    assert one.flops_forward == forward
    assert one.steps == 24 and one.tokens == 12 * 8 * (24 + 12)  # two stages of 12 steps; 12 steps of 8 sequences
    assert one.flops_total == 3 * forward * 8 * 24
    assert one.seconds == pytest.approx(7.0 + 24 * 3 * forward * 8 / (2 * 0.5e9))
    assert one.dollars == pytest.approx(2 * 3.6 * one.seconds / 3600)
    params = arch_zoo.count_params(cfg).total
    assert made.total("params") == 2 * params
    assert made.seconds == pytest.approx(2 * one.seconds)  # one after the other
    assert made.device_hours == pytest.approx(2 * 2 * one.seconds / 3600)
    held = memory.estimate_memory(cfg, 24, 12)
    per_sequence = held.activations + held.largest
    (counted,) = counts.count([counts.query(cfg, 24, 12, cell.pretrain.optimizer)])
    assert one.memory == 4 * (2 * params + counted.moments) + 4 * per_sequence  # four of eight sequences a device
    # The last two checkpoints and the best: of pretraining one, of finetuning the two that are evaluated, of 17 tasks.
    assert one.disk == (3 + 4) * 4 * (params + counted.moments)


def test_seeds_in_one_program_pay_where_start_up_or_idleness_is_shared():
    """They take one start-up, and steps of all their FLOPs at once; what does not fit stays alone."""
    cell = tiny("transformer")
    study_of_seeds = _study(*(dataclasses.replace(cell, seed=seed) for seed in range(4)), tiny("glu"))
    device = devices.Device("slow", flops=1e9, float32=1.0, memory=GB, mfu=0.5, setup=7.0, dollars=0.0, source="none")
    made = plan.make(study_of_seeds, VOCAB, device)
    assert made.seconds_together == pytest.approx(made.seconds - 3 * 7.0)
    assert plan.table(made)[-1].endswith("so it pays")
    small = dataclasses.replace(device, memory=2 * max(cell.memory for cell in made.cells))
    assert plan.make(study_of_seeds, VOCAB, small).seconds_together == pytest.approx(made.seconds)
    assert plan.make(study_of_seeds, VOCAB, device, devices=2).seconds_together is None
    assert plan.make(_study(cell, tiny("glu")), VOCAB, device).seconds_together is None
    # With a worker for each cell nothing is idle: one of them would do the work of four.
    apart = plan.make(study_of_seeds, VOCAB, device, workers=5)
    assert apart.seconds_together > apart.seconds and plan.table(apart)[-1].endswith("so it does not pay")
    # A device on which a step of a hundred times the FLOPs takes ten times as long is idle in small ones.
    idle = Calibration("gpu", {"transformer": [(1e6, 0.01), (1e8, 0.1)]}, {"transformer": [(1e6, 0.0), (1e8, 0.0)]})
    seeds = _study(*(dataclasses.replace(cell, seed=seed) for seed in range(4)))
    made = plan.make(seeds, VOCAB, device, calibration=idle)
    assert made.seconds_together == pytest.approx(made.seconds / math.sqrt(4))


def test_a_study_knows_when_its_seeds_had_better_go_together_where_the_machine_was_measured():
    cell = tiny("transformer")
    seeds = _study(*(dataclasses.replace(cell, seed=seed) for seed in range(4)))
    started = study_verbs.Study()
    assert not started._together_pays(seeds, 1)  # not measured
    flat = {"transformer": [(1e6, 0.01), (1e8, 0.01)]}
    calibrate.write(Calibration("cpu", flat, {"transformer": [(1e6, 5.0), (1e8, 5.0)]}))
    assert started._together_pays(seeds, 1)
    assert not started._together_pays(_study(cell, tiny("glu")), 1)
    steep = {"transformer": [(1e6, 0.01), (1e8, 10.0)]}  # four times the FLOPs take eight times as long
    calibrate.write(Calibration("cpu", steep, {"transformer": [(1e6, 0.0), (1e8, 0.0)]}))
    assert not started._together_pays(seeds, 1)


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix_and_all_of_a_vector():
    (found,) = counts.count(
        [counts.query(declare.model(tiny("transformer"), VOCAB), 24, 12, tiny("glu").pretrain.optimizer)]
    )
    assert found.moments < found.params / 5
    unfactored = dataclasses.replace(tiny("glu").pretrain.optimizer, min_factored_size=10_000)
    (found,) = counts.count([counts.query(declare.model(tiny("transformer"), VOCAB), 24, 12, unfactored)])
    assert found.moments == found.params


@pytest.mark.parametrize(
    ("durations", "workers", "expected"), [([3, 1, 1, 1], 2, 3), ([1, 1, 1, 3], 2, 4), ([2, 2], 1, 4)]
)
def test_the_schedule_is_that_of_the_pool(durations, workers, expected):
    assert plan.schedule(durations, workers) == expected


def test_what_cannot_fit_is_refused_with_what_would():
    large = next(cell for cell in study.load("paper").cells if cell.run_id == "transformer-large-s0")
    tpu = devices.Device("tpu", 1e12, 1.0, 5 * GB, 0.5, 0.0, 0.0, "none")

    def priced(cell, number, memory=5 * GB):
        return plan.make(_study(cell), declare.T5_VOCABULARY, dataclasses.replace(tpu, memory=memory), number).cells[0]

    # 0.74 G parameters: weights and gradients are 5.9 GB, which only a model axis makes smaller.
    refused = priced(large, 16)
    assert refused.problem.startswith(f"{refused.memory / 1e9:.1f} GB a device of tpu's 5; ")
    assert "--set parallel=mesh --set 'mesh=[8, 2, 1]' needs" in refused.problem
    assert priced(large, 16, 16 * GB).problem == ""
    sharded = dataclasses.replace(large, parallel="mesh", mesh=(8, 2, 1))
    assert priced(sharded, 16, 4 * GB).problem.startswith("4.1 GB")  # so that micro-batches were advised as well
    halved = declare.override((sharded,), {"pretrain.accumulate": 2, "finetune.accumulate": 2})[0]
    assert priced(halved, 16, 4 * GB).problem == ""
    assert priced(sharded, 24).problem == "mesh = [8, 2, 1] does not make 24 devices"
    spread = dataclasses.replace(large, parallel="mesh", mesh=(-1, 1, 16))
    assert priced(spread, 8).problem == "mesh = [-1, 1, 16] does not make 8 devices"
    assert priced(large, 24, 16 * GB).problem == "pretrain.batch_size = 128 does not divide into 24 parts"
    # 128 sequences on one device are too many, in micro-batches they are not.
    assert "--set pretrain.accumulate=" in priced(large, 1, 16 * GB).problem


def test_a_calibration_is_a_line_through_what_was_measured(tmp_path):
    measured = Calibration("cpu", {"glu": [(1e6, 0.01), (1e8, 0.1)]}, {"glu": [(1e6, 10.0), (1e8, 20.0)]})
    assert measured.step_seconds("glu", 1e7) == pytest.approx(math.sqrt(0.01 * 0.1))
    assert measured.step_seconds("mos", 1e8) == pytest.approx(0.1)  # not measured: as the others
    assert measured.setup_seconds("glu", 1e6) == pytest.approx(10.0)
    calibrate.write(measured, tmp_path / "c.json")
    read = calibrate.read(tmp_path / "c.json")
    assert read is not None and read.step_seconds("glu", 1e7) == pytest.approx(measured.step_seconds("glu", 1e7))
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(InputError, match="is no calibration"):
        calibrate.read(tmp_path / "c.json")


def test_probes_are_the_cheapest_and_the_dearest_cell_of_each_architecture():
    cpu = study.load("protocols")
    flops = {cell.run_id: float(rank) for rank, cell in enumerate(cpu.cells)}
    probes = calibrate.probes(cpu, flops)
    assert len(probes.cells) == 8
    assert {cell.pretrain.steps for cell in probes.cells} == {calibrate.STEPS}
    assert "transformer-micro-NL12-depth-s0" in {cell.run_id for cell in probes.cells}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "switch", "lconv", "universal", "funnel", "evolved", "mos"])
def test_counts_of_deep_stacks_are_those_of_the_whole_trace(name):
    cfg = arch_zoo.config(name, "nano-NL16", vocab_size=VOCAB)
    (found,) = counts.count([counts.query(cfg, 24, 12, tiny("glu").pretrain.optimizer)])
    held = memory.estimate_memory(cfg, 24, 12)
    assert found.flops == arch_zoo.count_flops(cfg, 24, 12).forward
    assert found.activations == held.activations + held.largest


def test_the_presets_are_counted():
    stored = json.loads(counts.PRESETS.read_text())["counts"]
    missing = [query.model.size for query in make_counts.queries() if query.key not in stored]
    assert not missing, "run python -m tests.train.make_counts"


def test_the_counts_of_presets_are_right():
    stored = json.loads(counts.PRESETS.read_text())["counts"]
    query = next(q for q in make_counts.queries() if (q.model.name, q.model.size) == ("transformer", "tiny"))
    assert stored[query.key] == dataclasses.asdict(counts.count_one(query))


@pytest.mark.slow
def test_all_counts_of_small_presets_are_right():
    stored = json.loads(counts.PRESETS.read_text())["counts"]
    for query in make_counts.queries():
        if query.model.size == "tiny":
            assert stored[query.key] == dataclasses.asdict(counts.count_one(query)), query.model


def test_plan_prints_the_whole_paper_and_refuses_what_does_not_fit(capsys):
    assert main(["plan", "paper", "--device", "tpu-v5e", "--devices", "16"]) == 2
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == len(study.load("paper").cells) + 3
    assert "error: transformer-base-s0" not in said.err.split("\n")[0] or "--set" in said.err
    assert main(["plan", "depth", "--devices", "16", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["totals"]["params"] == sum(cell["params"] for cell in made["cells"])
    assert main(["plan", "depth", "--devices", "16", "--format", "json", "--price", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["dollars"] == pytest.approx(2 * made["device_hours"])
    assert main(["plan", "depth", "--price", "-2"]) == 2
    assert "price = -2.0 must be dollars for an hour" in capsys.readouterr().err
    assert main(["plan", "paper", "--device", "abacus"]) == 2
    assert "device 'abacus' is unknown; known: cpu, h100" in capsys.readouterr().err
