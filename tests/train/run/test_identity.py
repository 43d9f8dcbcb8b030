"""A run directory belongs to one configuration; losses of its files are refused or reported."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

import train.run.cell
from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.__main__ import main
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, loop
from train.run.checkpoint import Checkpoints
from train.run.start import Start, checkpoints_of

STAGE = dataclasses.replace(tiny_study.STAGE, eval_every=0)
RUN = dataclasses.replace(tiny_study.run("transformer"), pretrain=STAGE, finetune=STAGE)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def stopped(corpus, tmp_path_factory):
    """A run that was stopped after 6 of 12 steps of pretraining."""
    directory = tmp_path_factory.mktemp("stopped")
    asked = iter([False] * 5 + [True])
    with pytest.raises(loop.Preempted):
        cell.run_cell(RUN, corpus, directory, stop=lambda: next(asked), quiet=True)
    return directory


@pytest.fixture
def copy(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def changed(config, **stage):
    return dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, **stage))


def goes_on(corpus, directory, config=RUN, stages=("pretrain",), **more):
    return cell.run_cell(config, corpus, directory, stages, quiet=True, **more)


def events(directory):
    return records.read_jsonl(directory / "events.jsonl")


def test_a_checkpoint_of_another_configuration_is_refused_by_its_settings(corpus, copy):
    (copy / "config.json").unlink()  # which would have been refused first
    with pytest.raises(
        InputError, match="of another configuration: pretrain.z_loss: 0.0001 -> 0.001; use another"
    ):
        goes_on(corpus, copy, changed(RUN, z_loss=1e-3))
    with pytest.raises(
        InputError, match="of another configuration: hash: [0-9a-f]{16} -> [0-9a-f]{16}"
    ):
        goes_on(corpus, copy, changed(RUN, steps=14))  # the same training, but another run
    assert not (copy / "config.json").exists()
    assert goes_on(corpus, copy) == "done"


def test_checkpoints_of_another_stage_are_refused(corpus, copy):
    shutil.copytree(copy / "checkpoints" / "pretrain", copy / "checkpoints" / "finetune")
    with pytest.raises(
        InputError,
        match="checkpoints.finetune: its checkpoints are of stage pretrain, not finetune",
    ):
        goes_on(corpus, copy, stages=("finetune",))


@pytest.mark.slow
def test_a_finished_run_without_its_configuration_is_not_somebody_elses(corpus, tmp_path):
    run = dataclasses.replace(RUN, finetune=None)
    assert goes_on(corpus, tmp_path, run) == "done"
    written = (tmp_path / "config.json").read_bytes()
    (tmp_path / "config.json").unlink()
    with pytest.raises(
        InputError, match="config.json is gone, and the run there is of another configuration"
    ):
        goes_on(corpus, tmp_path, changed(run, z_loss=1e-3))
    assert goes_on(corpus, tmp_path, run) == "done"
    assert (tmp_path / "config.json").read_bytes() == written


def test_only_the_runs_own_pretraining_is_finetuned(corpus, copy):
    (copy / "config.json").unlink()
    with pytest.raises(
        InputError, match="checkpoints.pretrain.*another configuration: pretrain.z_loss"
    ):
        goes_on(corpus, copy, changed(RUN, z_loss=1e-3), ("finetune",))


@pytest.mark.slow
def test_only_the_same_settings_are_resumed_from_elsewhere(corpus, stopped, tmp_path):
    elsewhere = checkpoints_of(stopped, "pretrain")
    with pytest.raises(
        InputError, match="has other settings: pretrain.z_loss: 0.0001 -> 0.001; --init-from starts"
    ):
        goes_on(
            corpus,
            tmp_path / "other",
            changed(RUN, z_loss=1e-3),
            start_from=Start(resume_from=elsewhere),
        )
    assert not (tmp_path / "other" / "config.json").exists()
    assert (
        goes_on(
            corpus,
            tmp_path / "longer",
            changed(RUN, steps=14),
            start_from=Start(resume_from=elsewhere),
        )
        == "done"
    )
    run = records.read_run(tmp_path / "longer")
    with Checkpoints(
        checkpoints_of(tmp_path / "longer", "pretrain"), read_only=True
    ) as checkpoints:
        _, meta = checkpoints.restore({})
    assert meta["hash"] == run.config["hash"]  # its own checkpoints have its own hash
    assert [event["event"] for event in events(tmp_path / "longer")] == [
        "resumed"
    ]  # the other's records are not lost


def test_a_checkpoint_of_another_size_is_refused_in_one_line(corpus, stopped, tmp_path, capfd):
    wide = dataclasses.replace(RUN, size="nano-DM48")
    with pytest.raises(
        InputError, match=r"step 6 is of another model: params\..* has shape \[.*\] there and shape"
    ):
        goes_on(
            corpus,
            tmp_path / "wide",
            wide,
            start_from=Start(init_from=checkpoints_of(stopped, "pretrain")),
        )
    assert not (tmp_path / "wide" / "config.json").exists()
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out and len((said.err + said.out).splitlines()) < 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "metrics.jsonl has 0 rows where 3 stood"),
        (
            lambda path: path.write_bytes(path.read_bytes().split(b"\n", 1)[1]),
            "metrics.jsonl has 2 rows where 3 stood",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'"nll": ', b'"nll": 1', 1)),
            "has other values in",
        ),
    ],
    ids=["deleted", "halved", "a digit"],
)
def test_records_that_are_lost_before_a_resume_are_reported(corpus, copy, capsys, damage, told):
    damage(copy / "metrics.jsonl")
    assert goes_on(corpus, copy) == "done"
    assert told in capsys.readouterr().err
    (event,) = [event for event in events(copy) if event["event"] == records.LOST]
    assert told in event["detail"] and event["step"] == 6


def test_a_row_that_is_no_json_is_refused(corpus, copy):
    path = copy / "metrics.jsonl"
    path.write_bytes(b"\0" * 20 + path.read_bytes()[20:])
    with pytest.raises(InputError, match="metrics.jsonl: row 1 is not JSON"):
        goes_on(corpus, copy)


def test_an_undamaged_run_goes_on_without_a_word(corpus, copy, capsys):
    assert goes_on(corpus, copy) == "done"
    assert [event["event"] for event in events(copy)] == ["resumed"]
    assert "warning" not in capsys.readouterr().err


def test_a_run_without_its_checkpoints_does_not_start_over(corpus, copy):
    before = (copy / "metrics.jsonl").read_bytes()
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(
        InputError, match="has records of 6 steps of pretrain and no checkpoint of them; bring its"
    ):
        goes_on(corpus, copy)
    assert (copy / "metrics.jsonl").read_bytes() == before
    (copy / "checkpoints" / "pretrain").mkdir(parents=True)
    assert goes_on(corpus, copy) == "done"  # as if the run was killed before its first save


@pytest.mark.slow
def test_many_steps_without_any_checkpoint_are_lost_ones(corpus, copy):
    shutil.rmtree(copy / "checkpoints" / "pretrain" / "6")
    shutil.rmtree(copy / "checkpoints" / "pretrain" / "4")
    records.append_jsonl(
        copy / "metrics.jsonl", [{"step": 9, "stage": "pretrain"}]
    )  # two saves are missing, at one every 4 steps
    with pytest.raises(InputError, match="has records of 9 steps"):
        goes_on(corpus, copy)


@pytest.mark.slow
def test_the_best_score_says_of_how_many_evaluations(corpus, tmp_path):
    often = dataclasses.replace(RUN, finetune=dataclasses.replace(STAGE, eval_every=6))
    assert cell.run_cell(often, corpus, tmp_path, quiet=True) == "done"
    best = [row for row in records.read_run(tmp_path).evals if row["metric"] == "best_score"]
    assert best and {row["evaluations"] for row in best} == {2}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("first\nsecond")])
def test_an_error_without_a_message_has_a_reason(corpus, tmp_path, monkeypatch, error):
    def train(job, writer):
        raise error

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(type(error)):
        goes_on(corpus, tmp_path)
    status = records.read_json(tmp_path / "status.json")
    assert (status["state"], status["error"]) == ("failed", records.reason(error))
    assert status["error"] in ("MemoryError", "RuntimeError: first")


@pytest.mark.parametrize(
    "setting", ["seed=7", "study=x", "architecture=glu", "size=tiny", 'protocol="depth"']
)
@pytest.mark.parametrize("verb", [["pretrain"], ["finetune"], ["study", "cpu"], ["plan", "cpu"]])
def test_settings_do_not_change_the_name_of_a_run(corpus, tmp_path, capsys, verb, setting):
    more = ["--corpus", str(corpus.path), "--runs", str(tmp_path / "runs")]
    assert main([*verb, *more, "--set", setting]) == 2
    key = setting.partition("=")[0]
    assert f"set: '{key}' is part of a run's name" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_setting_has_one_value(capsys):
    assert main(["plan", "cpu", "--set", "pretrain.steps=5", "--set", "pretrain.steps=6"]) == 2
    assert "set: 'pretrain.steps' is given two values, 5 and 6" in capsys.readouterr().err
    assert main(["plan", "cpu", "--set", "pretrain.z_loss=NaN"]) == 2
    assert "set.pretrain.z_loss = nan must be a number" in capsys.readouterr().err


def test_a_refused_command_leaves_the_directory_to_the_corrected_one(corpus, tmp_path, capsys):
    place = ["--corpus", str(corpus.path), "--runs", str(tmp_path), "--architecture", "mixer"]
    small = [
        f"{stage}.{key}={getattr(STAGE, key)}"
        for stage in ("pretrain", "finetune")
        for key in (
            "steps",
            "batch_size",
            "input_length",
            "target_length",
            "eval_batches",
            "eval_batch_size",
        )
    ]
    arguments = [
        "finetune",
        *place,
        "--set",
        *small,
        "model.num_encoder_layers=1",
        "model.num_decoder_layers=1",
    ]
    (tmp_path / "single" / "mixer-nano-s0" / "checkpoints" / "pretrain").mkdir(parents=True)
    assert main([*arguments, "--set", "finetune.pack=true"]) == 2
    assert "mixer cannot tell examples of one row apart" in capsys.readouterr().err
    assert not list(tmp_path.glob("single/*/config.json"))


def test_the_commit_is_that_of_the_repository_that_has_this_code(tmp_path, monkeypatch):
    """An installed copy inside another project's repository, as in a virtual environment."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "theirs.txt").write_text("x")
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", tmp_path, *identity, "commit", "-qm", "theirs"], check=True)
    installed = tmp_path / "venv" / "train"
    installed.mkdir(parents=True)
    shutil.copy(Path(train.run.cell.__file__), installed)
    monkeypatch.setattr(train.run.cell, "__file__", str(installed / "cell.py"))
    assert train.run.cell._commit() is None
    subprocess.run(["git", "-C", tmp_path, "add", "venv"], check=True)
    assert train.run.cell._commit()


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"state": 3}', "{torn", '{"state": "running", "step": "many"}']
)
@pytest.mark.parametrize("verb", [["status"], ["watch", "--every", "0.01"]])
def test_a_malformed_status_is_one_line(tmp_path, capsys, text, verb):
    manifest = dataclasses.replace(tiny_study.study(), cells=(RUN,))
    from train.study.directory import write_manifest

    write_manifest(manifest, tmp_path)
    (tmp_path / RUN.run_id).mkdir()
    (tmp_path / RUN.run_id / "status.json").write_text(text)
    assert main([verb[0], str(tmp_path), *verb[1:]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "status.json" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def study():\n    raise KeyError('x')\n", "study() raises KeyError"),
        ("study = 3\n", "has no function study()"),
        ("def study():\n    return 3\n", "has no function study() that returns a StudyConfig"),
        ("def study(name):\n    return 3\n", "study() raises TypeError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("def study(:\n", "SyntaxError"),
    ],
)
def test_a_study_file_that_declares_none_is_one_line(tmp_path, capsys, code, said):
    (tmp_path / "mine.py").write_text(code)
    assert main(["plan", "--config", str(tmp_path / "mine.py")]) == 2
    printed = capsys.readouterr().err
    assert said in printed and "mine.py" in printed and printed.count("\n") == 1


def test_a_model_takes_no_setting_that_comes_from_elsewhere(capsys):
    for setting, said in (
        ("model.size=base", "model.size"),
        ("model.architecture=glu", "model.architecture"),
        ("model.vocab_size=100", "model.vocab_size"),
        ("model.dropout_rate=0.5", "model.dropout_rate"),
    ):
        assert main(["plan", "cpu", "--set", setting]) == 2
        printed = capsys.readouterr().err
        assert said in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--study", "x" * 300], "File name too long"),
        (["--resume-from", "y" * 300], "resume_from: 'yyy"),
        (["--set", "pretrain.batch_size=100000000"], "needs at least"),
        (["--set", "pretrain.eval_batch_size=100000000"], "needs at least"),
        (
            ["--size", "nano-NL1000000"],
            "num_encoder_layers=1000000: must be at least 1 and at most 1024",
        ),
        (["--size", "base-DM65536-FF1048576"], "needs at least"),
        (["--seeds", "5000000"], "seeds = 5000000 must be at least 1 and at most 1024"),
        (["--seeds", "1000", "--size", "base"], "for 1000 seeds"),
        (["--seed", "-1"], "seed = -1 must be at least 0"),
        (["--seed", "4294967296"], "seed = 4294967296 must be"),
    ],
)
def test_a_run_that_no_machine_can_hold_is_refused_before_it_is_built(
    corpus, tmp_path, capsys, more, said
):
    place = ["--corpus", str(corpus.path), "--runs", str(tmp_path)]
    assert main(["pretrain", *place, *more]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert not list(tmp_path.glob("*/*/config.json"))


@pytest.mark.slow
def test_finetuning_need_not_repeat_the_settings_of_pretraining(corpus, tmp_path, capsys):
    short = ["pretrain.steps=2", "pretrain.checkpoint_every=2", "pretrain.eval_batches=1"]
    few = ["finetune.steps=1", "finetune.eval_examples=4", "finetune.checkpoint_every=1"]
    where = ["--corpus", str(corpus.path), "--runs", str(tmp_path), "--study", "s"]
    begun = ["pretrain", *where, "--set", *short, *few]
    assert main(begun) == 0
    capsys.readouterr()
    assert main(["finetune", *where, "--set", *few, "pretrain.steps=3"]) == 2
    assert "pretrain.steps: 2 -> 3; settings belong to a run" in capsys.readouterr().err
    assert main(["finetune", *where, "--set", *few]) == 0
    (run,) = (tmp_path / "s").iterdir()
    assert records.read_status(run)["finished"] == ["pretrain", "finetune"]
