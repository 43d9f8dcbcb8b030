"""The output of `plan` against cases computed by hand; its counts against complete traces."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import pytest

import arch_zoo
from arch_zoo import memory
from configs import presets
from tests.train.plan import make_counts
from tests.train.tiny_study import run as tiny
from train import power, records
from train.__main__ import main
from train.data.batch_shape import BatchShape
from train.plan import calibrate, counts, devices, plan
from train.plan.calibrate import Calibration
from train.records import InputError
from train.study import declare, verbs
from train.study.config import OptimizerConfig, StudyConfig
from train.study.directory import ATTEMPTS, load

VOCAB = 296
GB = 10**9
SHAPE = BatchShape(8, 24, 12)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the cache of counts is in this directory


def _plan(study, vocab_size, device, devices=1, **how):
    return plan.make(study, vocab_size, plan.Machines(device, devices, **how))


def _study(*cells):
    return StudyConfig("small", cells or (tiny("transformer"),), corpus="nowhere", platform="cpu")


def test_totals_are_what_a_hand_computes():
    cell = tiny("transformer")
    device = devices.Device(
        "slow", flops=1e9, float32=1.0, memory=GB, mfu=0.5, setup=7.0, dollars=3.6, source="none"
    )
    made = _plan(_study(cell, dataclasses.replace(cell, seed=1)), VOCAB, device, devices=2)
    cfg = declare.model(cell, VOCAB, accelerator=True)
    forward = arch_zoo.count_flops(cfg, 24, 12).forward
    one = made.cells[0]
    assert one.flops_forward == forward
    assert one.steps == 24 and one.tokens == 12 * 8 * (
        24 + 12
    )  # two stages of 12 steps; 12 steps of 8 sequences
    assert one.flops_total == 3 * forward * 8 * 24
    assert one.seconds == pytest.approx(7.0 + 24 * 3 * forward * 8 / (2 * 0.5e9))
    assert one.dollars == pytest.approx(2 * 3.6 * one.seconds / 3600)
    params = arch_zoo.count_params(cfg).total
    assert made.total("params") == 2 * params
    assert made.seconds == pytest.approx(2 * one.seconds)  # one after the other
    assert made.device_hours == pytest.approx(2 * 2 * one.seconds / 3600)
    held = memory.estimate_memory(cfg, 24, 12)
    per_sequence = held.activations + held.largest
    (counted,) = counts.count([counts.query(cfg, SHAPE, cell.pretrain.optimizer)])
    assert (
        one.memory == 4 * (2 * params + counted.moments) + 4 * per_sequence
    )  # four of eight sequences a device
    # The last two checkpoints and the best ones: one for pretraining; for finetuning one for each
    # of 17 tasks, but only two checkpoints are evaluated.
    assert one.disk == (3 + 4) * 4 * (params + counted.moments)


@pytest.mark.parametrize(("name", "each"), [("adamw", 2), ("lion", 1), ("muon", 2)])
def test_another_optimizer_keeps_other_numbers(name, each):
    stage = dataclasses.replace(tiny("transformer").pretrain, optimizer=OptimizerConfig(name=name))
    cell = dataclasses.replace(tiny("transformer"), pretrain=stage, finetune=None)
    plain = dataclasses.replace(
        stage, optimizer=dataclasses.replace(stage.optimizer, name="adafactor")
    )
    before = dataclasses.replace(cell, pretrain=plain)
    one, other = (_plan(_study(c), VOCAB, SLOW).cells[0] for c in (cell, before))
    cfg = declare.model(cell, VOCAB, accelerator=True)
    (counted,) = counts.count([counts.query(cfg, SHAPE, plain.optimizer)])
    assert one.memory - other.memory == 4 * (each * counted.params - counted.moments)


SLOW = devices.Device(
    "slow",
    flops=1e9,
    float32=1.0,
    memory=GB,
    mfu=0.5,
    setup=7.0,
    dollars=0.0,
    source="none",
    kind="slow",
)


def _seeds(count, *cells):
    return _study(*declare.seeds(cells or (tiny("transformer"),), count))


def _measured(*ratios, setup=5.0):
    """A device on which a step of one seed takes .5 s.

    A step of several seeds takes that times their number times a ratio, one for each architecture.
    """
    names = ("transformer", "glu")[: len(ratios)]
    together = {name: [(1e6, ratio)] for name, ratio in zip(names, ratios, strict=True)}
    steps, around = ({name: [(1e6, seconds)] for name in names} for seconds in (0.5, setup))
    return Calibration("slow", steps, around, together, further={})


def test_seeds_go_together_where_their_steps_were_measured_to_gain():
    four = _seeds(4)
    steps = sum(cell.steps for cell in _plan(four, VOCAB, SLOW).cells)
    made = _plan(four, VOCAB, SLOW, calibration=_measured(0.25))
    assert made.together == (tuple(cell.run_id for cell in four.cells),)
    assert made.seconds == pytest.approx(4 * 5.0 + steps * 0.5)
    assert made.seconds_together == pytest.approx(4 * 5.0 + 0.25 * steps * 0.5)
    assert plan.table(made)[-1].endswith("4 cells in 1 program")


@pytest.mark.slow
def test_seeds_stay_alone_where_they_do_not_gain():
    four = _seeds(4)
    for made in (
        _plan(four, VOCAB, SLOW, calibration=_measured(1.0)),
        _plan(four, VOCAB, SLOW, calibration=_measured(0.99)),  # less than can be told from noise
        _plan(four, VOCAB, SLOW),  # not measured
    ):
        assert made.together == () and made.seconds_together == made.seconds
        assert plan.table(made)[-1].endswith("as no cell would gain")
    assert _plan(four, VOCAB, SLOW, devices=2, calibration=_measured(0.25)).seconds_together is None
    assert _plan(_study(tiny("transformer"), tiny("glu")), VOCAB, SLOW).seconds_together is None


def test_start_up_is_shared_where_each_cell_alone_would_have_a_process_of_its_own():
    four, idle = (
        _seeds(4),
        dataclasses.replace(_measured(1.1, setup=100.0), further={"transformer": [(1e6, 0.2)]}),
    )
    steps = sum(cell.steps for cell in _plan(four, VOCAB, SLOW).cells)
    assert _plan(four, VOCAB, SLOW, calibration=idle).together == ()
    made = _plan(four, VOCAB, SLOW, calibration=idle, own_process=True)
    assert made.together == (tuple(cell.run_id for cell in four.cells),)
    assert made.seconds == pytest.approx(4 * 100.0 + steps * 0.5)
    assert made.seconds_together == pytest.approx(1.6 * 100.0 + 1.1 * steps * 0.5)
    busy = dataclasses.replace(idle, further={"transformer": [(1e6, 0.95)]})
    assert _plan(four, VOCAB, SLOW, calibration=busy, own_process=True).together == ()


@pytest.mark.slow
def test_each_cell_is_decided_on_its_own():
    both = _seeds(2, tiny("transformer"), tiny("glu"))
    speed = _measured(0.5, 1.2)
    made = _plan(both, VOCAB, SLOW, calibration=speed)
    assert made.together == (("transformer-nano-s0", "transformer-nano-s1"),)
    always = _plan(both, VOCAB, SLOW, calibration=speed, always=True)
    assert always.together == (*made.together, ("glu-nano-s0", "glu-nano-s1"))
    assert always.seconds_together > made.seconds_together
    apart = _plan(
        both, VOCAB, SLOW, calibration=speed, workers=4
    )  # each cell has a worker, so nothing waits
    assert apart.together == ()


def test_seeds_that_always_go_together_keep_every_worker_busy():
    names = tuple(f"transformer-nano-s{seed}" for seed in range(4))
    for workers, programs in ((1, (names,)), (2, (names[:2], names[2:]))):
        made = _plan(
            _seeds(4), VOCAB, SLOW, calibration=_measured(1.5), workers=workers, always=True
        )
        assert made.together == programs
        assert made.seconds_together > made.seconds


def test_seeds_are_divided_among_workers_and_by_memory():
    four, free = _seeds(4), _measured(0.3, setup=0.0)
    made = _plan(four, VOCAB, SLOW, calibration=free, workers=2)
    names = tuple(cell.run_id for cell in four.cells)
    assert made.together == (names[:2], names[2:])
    assert made.seconds_together == pytest.approx(0.3 * made.seconds)
    narrow = dataclasses.replace(SLOW, memory=2.5 * made.cells[0].memory)
    assert _plan(four, VOCAB, narrow, calibration=free).together == (names[:2], names[2:])
    narrow = dataclasses.replace(SLOW, memory=1.5 * made.cells[0].memory)
    assert _plan(four, VOCAB, narrow, calibration=free).together == ()
    assert _plan(four, VOCAB, narrow, calibration=free, always=True).together == ()


def test_a_launcher_follows_vmap_seeds_and_hints_where_it_would_save_time(capsys):
    four = _seeds(4)
    names = [cell.run_id for cell in four.cells]

    def together(choice, cells=names):
        found = verbs.StudyVerb(vmap_seeds=choice).together(four, cells, SLOW, 1)
        return [tuple(program) for program in found], capsys.readouterr().err

    assert together("never") == ([], "")
    out = "small: 0 of 4 cells run together, in 0 programs (slow: none)\n"
    assert together("auto") == ([], out)
    assert together("always")[0] == [tuple(names)]
    calibrate.write(_measured(0.25))
    found, said = together("never")
    assert found == []
    assert (
        said
        == "small: 4 of 4 cells would take less time with --vmap-seeds auto (measured on slow)\n"
    )
    assert together("auto", names[1:])[0] == [tuple(names[1:])]  # only those that are left
    assert together("auto", names[3:]) == ([], "")
    calibrate.write(_measured(1.1))
    assert together("never") == ([], "")


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix_and_all_of_a_vector():
    (found,) = counts.count(
        [
            counts.query(
                declare.model(tiny("transformer"), VOCAB), SHAPE, tiny("glu").pretrain.optimizer
            )
        ]
    )
    assert found.moments < found.params / 5
    unfactored = dataclasses.replace(tiny("glu").pretrain.optimizer, min_factored_size=10_000)
    (found,) = counts.count(
        [counts.query(declare.model(tiny("transformer"), VOCAB), SHAPE, unfactored)]
    )
    assert found.moments == found.params


@pytest.mark.parametrize(
    ("durations", "workers", "expected"),
    [([3, 1, 1, 1], 2, 3), ([1, 1, 1, 3], 2, 4), ([2, 2], 1, 4)],
)
def test_the_schedule_is_that_of_the_pool(durations, workers, expected):
    assert plan.schedule(durations, workers) == expected


def test_what_cannot_fit_is_refused_with_what_would():
    large = next(cell for cell in load("paper").cells if cell.run_id == "transformer-large-s0")
    tpu = devices.Device("tpu", 1e12, 1.0, 5 * GB, 0.5, 0.0, 0.0, "none")

    def priced(cell, number, memory=5 * GB):
        return _plan(
            _study(cell), declare.T5_VOCABULARY, dataclasses.replace(tpu, memory=memory), number
        ).cells[0]

    # 0.74 G parameters: weights and gradients are 5.9 GB, which only a model axis can reduce.
    refused = priced(large, 16)
    assert refused.problem.startswith(f"{refused.memory / 1e9:.1f} GB a device of tpu's 5; ")
    assert "--set parallel=mesh --set 'mesh=[8, 2, 1]' needs" in refused.problem
    assert priced(large, 16, 16 * GB).problem == ""
    sharded = dataclasses.replace(large, parallel="mesh", mesh=(8, 2, 1))
    assert priced(sharded, 16, 4 * GB).problem.startswith(
        "4.1 GB"
    )  # so that micro-batches are suggested as well
    halved = declare.override((sharded,), {"pretrain.accumulate": 2, "finetune.accumulate": 2})[0]
    assert priced(halved, 16, 4 * GB).problem == ""
    assert priced(sharded, 24).problem == "mesh = [8, 2, 1] does not make 24 devices"
    spread = dataclasses.replace(large, parallel="mesh", mesh=(-1, 1, 16))
    assert priced(spread, 8).problem == "mesh = [-1, 1, 16] does not make 8 devices"
    assert (
        priced(large, 24, 16 * GB).problem
        == "pretrain.batch_size = 128 does not divide into 24 parts"
    )
    # 128 sequences are too many for one device, but not as micro-batches.
    assert "--set pretrain.accumulate=" in priced(large, 1, 16 * GB).problem


def test_a_calibration_is_a_line_through_what_was_measured():
    together = {"glu": [(1e6, 0.4), (1e8, 1.0)]}
    steps, setup = {"glu": [(1e6, 0.01), (1e8, 0.1)]}, {"glu": [(1e6, 10.0), (1e8, 20.0)]}
    measured = Calibration("cpu", steps, setup, together, {"glu": [(1e6, 0.2)]})
    assert measured.step_seconds("glu", 1e7) == pytest.approx(math.sqrt(0.01 * 0.1))
    assert measured.step_seconds("mos", 1e8) == pytest.approx(0.1)  # unmeasured: as the others
    assert measured.setup_seconds("glu", 1e6) == pytest.approx(10.0)
    assert measured.together_ratio("glu", 1e7) == pytest.approx(0.7)
    assert measured.further_share("glu", 1e7) == pytest.approx(0.2)
    unmeasured = dataclasses.replace(measured, together={}, further={})
    assert unmeasured.together_ratio("glu", 1e7) == calibrate.TOGETHER
    assert unmeasured.further_share("glu", 1e7) == calibrate.FURTHER


def test_records_of_cells_alone_and_together_make_a_calibration(tmp_path):
    def finished(seed, together, rate, seconds, *more):
        path = tmp_path / f"glu-nano-s{seed}"
        path.mkdir()
        writer = records.RunWriter(path)
        account = {"flops_train": 1e6, "sequences_per_step": 4}
        config = {"architecture": "glu", "accounting": account, "pretrain": {"steps": 10}}
        writer.config(config, {"device": "abacus"})
        writer.metrics({"step": 10, "stage": "pretrain", "steps_per_second": rate})
        rows = [{"state": "done", "together": together, "seconds": seconds}, *more]
        records.append_jsonl(path / ATTEMPTS, rows)

    finished(0, 1, 2.0, 5.0 + 8.0)
    finished(
        1, 3, 0.8, 12.5 + 12.0
    )  # a step of three seeds takes 1.25 s, and two more seeds add 4 s to the 8 s besides steps
    finished(
        2, 1, 99.0, 99.0, {"state": "done", "together": 1, "seconds": 1.0}
    )  # this one was interrupted
    found = calibrate.from_records(tmp_path)
    assert found.device == "abacus"
    assert found.step_seconds("glu", 4e6) == pytest.approx(0.5)
    assert found.setup_seconds("glu", 4e6) == pytest.approx(8.0)
    assert found.together_ratio("glu", 4e6) == pytest.approx(1.25 / (3 * 0.5))
    assert found.further_share("glu", 4e6) == pytest.approx(0.25)


def test_calibrations_are_kept_by_device(tmp_path):
    here, there = _measured(0.25), dataclasses.replace(_measured(0.5), device="NVIDIA H200")
    calibrate.write(here)
    calibrate.write(there)
    assert calibrate.read("NVIDIA H200").together_ratio("transformer", 1e6) == pytest.approx(0.5)
    assert calibrate.read("slow").together_ratio("transformer", 1e6) == pytest.approx(0.25)
    assert calibrate.read("abacus") is None
    calibrate.PATH.write_text('{"slow": {"device": "slow"}}')
    with pytest.raises(InputError, match="is not a calibration file"):
        calibrate.read("slow")


def test_short_runs_are_the_cheapest_and_the_dearest_cell_of_each_architecture():
    cpu = load("protocols")
    flops = {cell.run_id: float(rank) for rank, cell in enumerate(cpu.cells)}
    short, together = calibrate.short_runs(cpu, flops)
    assert len(short.cells) == 8
    assert {cell.pretrain.steps for cell in short.cells} == {calibrate.STEPS}
    assert "transformer-micro-NL12-depth-s0" in {cell.run_id for cell in short.cells}
    assert together == []


def test_short_runs_of_a_study_with_seeds_have_some_together():
    one = _seeds(6)
    short, together = calibrate.short_runs(one, {cell.run_id: 1.0 for cell in one.cells})
    assert together == [[f"transformer-nano-s{seed}" for seed in (6, 7, 8, 9)]]
    assert [cell.run_id for cell in short.cells] == ["transformer-nano-s5", *together[0]]
    seeds = _seeds(6, tiny("transformer"), dataclasses.replace(tiny("transformer"), size="micro"))
    flops = {cell.run_id: float(cell.size == "micro") for cell in seeds.cells}
    short, together = calibrate.short_runs(seeds, flops)
    assert together == [
        [f"transformer-{size}-s{seed}" for seed in (6, 7, 8, 9)] for size in ("micro", "nano")
    ]
    alone = {cell.run_id for cell in short.cells} - {
        name for program in together for name in program
    }
    assert len(alone) == 2 and alone < {cell.run_id for cell in seeds.cells}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth"),
    [("transformer", 8), ("switch", 8), ("lconv", 16), ("universal", 8), ("funnel", 8)],
)
def test_counts_of_deep_stacks_are_those_of_the_whole_trace(name, depth):
    cfg = arch_zoo.config(name, f"nano-NL{depth}", vocab_size=VOCAB)
    (found,) = counts.count([counts.query(cfg, SHAPE, tiny("glu").pretrain.optimizer)])
    assert found.flops == arch_zoo.count_flops(cfg, 24, 12).forward
    for gpu, activations in ((False, found.activations), (True, found.gpu_activations)):
        held = memory.estimate_memory(cfg, 24, 12, gpu=gpu)
        assert activations == held.activations + held.largest


@pytest.mark.slow
def test_many_models_are_counted_by_several_processes(monkeypatch, capsys):
    queries = [
        counts.query(
            arch_zoo.config("transformer", size, vocab_size=VOCAB),
            SHAPE,
            tiny("glu").pretrain.optimizer,
        )
        for size in ("nano", "micro")
    ]
    alone = counts.count(queries, Path("alone.json"), every=0)
    done = [f"plan: counted {n + 1} of {len(queries)} models" for n in range(len(queries))]
    assert capsys.readouterr().err.splitlines() == done
    monkeypatch.setattr(counts, "_FEW", 1)
    assert counts.count(queries, Path("pool.json")) == alone


def test_a_gpu_holds_less_where_attention_is_cudnn_s():
    """Only for a stage without dropout and a single seed."""
    plain = dataclasses.replace(tiny("transformer"), finetune=None)
    dropped = dataclasses.replace(
        plain, pretrain=dataclasses.replace(plain.pretrain, dropout_rate=0.1)
    )
    gpu, tpu = devices.get("h100"), devices.get("tpu-v5e")
    held = {
        name: _plan(_study(cell), VOCAB, device).cells[0].memory
        for name, cell, device in (
            ("gpu", plain, gpu),
            ("dropped", dropped, gpu),
            ("tpu", plain, tpu),
        )
    }
    assert held["gpu"] < held["dropped"] == held["tpu"]


def test_the_presets_are_counted():
    stored = json.loads(counts.PRESETS.read_text())["counts"]
    missing = [query.model.size for query in make_counts.queries() if query.key not in stored]
    assert not missing, "run python -m tests.train.plan.make_counts"


def _assert_counted(query, stored):
    counted = dataclasses.asdict(counts.count_one(query))
    if (
        f"jax=={jax.__version__}"
        not in (Path(__file__).parents[3] / "constraints.txt").read_text().split()
    ):
        # What the derivative keeps of activations such as GELU differs between releases of JAX.
        for key in ("activations", "gpu_activations"):
            del stored[key], counted[key]
    assert stored == counted, query.model


@pytest.mark.slow
def test_the_counts_of_presets_are_right():
    stored = json.loads(counts.PRESETS.read_text())["counts"]
    query = next(
        q for q in make_counts.queries() if (q.model.name, q.model.size) == ("transformer", "tiny")
    )
    _assert_counted(query, stored[query.key])


@pytest.mark.slow
def test_the_flops_of_all_small_presets_are_right():
    stored = json.loads(counts.PRESETS.read_text())["counts"]
    for query in make_counts.queries():
        if query.model.size == "tiny":
            flops = arch_zoo.count_flops(query.model, **query.lengths).forward
            assert stored[query.key]["flops"] == flops, query.model
            assert stored[query.key]["params"] == arch_zoo.count_params(query.model).total


def test_plan_prints_the_whole_paper_and_refuses_what_does_not_fit(capsys):
    assert main(["plan", "paper", "--device", "tpu-v5e", "--devices", "16"]) == 2
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == len(load("paper").cells) + 4
    assert "power: this study can tell slopes that differ by" in said.out.splitlines()[-1]
    assert "error: transformer-base-s0" not in said.err.split("\n")[0] or "--set" in said.err
    assert main(["plan", "depth", "--devices", "16", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["totals"]["params"] == sum(cell["params"] for cell in made["cells"])
    assert main(["plan", "depth", "--devices", "16", "--format", "json", "--price", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["dollars"] == pytest.approx(
        2 * made["device_hours"]
    )
    assert main(["plan", "depth", "--price", "-2"]) == 2
    assert "price = -2.0 must be at least 0 and finite" in capsys.readouterr().err
    assert main(["plan", "paper", "--device", "abacus"]) == 2
    assert "device 'abacus' is unknown; known: cpu, h100" in capsys.readouterr().err


def test_a_plan_says_which_slopes_the_study_can_tell():
    cells = [
        dataclasses.replace(tiny(name), size=f"nano-DM{width}", seed=seed)
        for name in ("transformer", "glu")
        for width in (32, 48, 64, 96)
        for seed in (0, 1)
    ]
    flops = [10 ** (9 + 0.5 * (i // 2 % 4)) for i in range(len(cells))]
    found = plan.power_of(cells, flops)
    decades = dict.fromkeys(("transformer", "glu"), [9.0, 9.5, 10.0, 10.5])
    low, _ = power.smallest_slope(decades, "transformer", 2)
    assert f"differ by {100 * low:.0f} % from transformer's" in found
    assert "4 sizes, 2 seeds, 2 architectures" in found
    halved = plan.power_of(cells, flops, power.ExpectedNoise(slope=0.27))
    assert f"differ by {200 * low:.0f} %" in halved
    assert "slopes cannot be compared" in plan.power_of(cells[::8], flops[::8])
    assert plan.power_of(cells[:8], flops[:8]) == ""


def test_a_small_model_is_not_planned_at_a_thousand_steps_a_second():
    """Kernels have to be started, however small they are; a large model does not notice."""
    cells = declare.grid(presets.t5, size=("pythia_14m", "large"), architecture=("transformer",))
    cells = tuple(dataclasses.replace(cell, family="decoder_only") for cell in cells)
    cells = declare.override(cells, {"pretrain.batch_size": 16, "finetune.batch_size": 16})
    study = StudyConfig(name="s", cells=cells, corpus="none")
    h100 = devices.get("h100")
    free = dataclasses.replace(h100, layer_seconds=0.0)
    small, large = (cell.seconds for cell in plan.make(study, 512, plan.Machines(h100), 1).cells)
    unbound, same = (cell.seconds for cell in plan.make(study, 512, plan.Machines(free), 1).cells)
    steps = cells[0].pretrain.steps + cells[0].finetune.steps
    assert large == same
    assert steps / (small - h100.setup) < 400 < steps / (unbound - h100.setup)
