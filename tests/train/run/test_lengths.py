"""What the lengths of a stage cut off: counted, and refused if no answer could be right."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data import batches, shards
from train.data.batch_shape import BatchShape
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, lengths
from train.run.evaluators import tasks
from train.run.step import make_model

STAGE = tiny_study.STAGE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Adds a task with labels of several pieces, a copy of it for training only, and free text."""
    path = write_corpus(tmp_path_factory.mktemp("corpus"))
    index = json.loads((path / "corpus.json").read_text())
    about = index["tasks"]["python_subject"]
    long = about | {"labels": ["the cat likes the dog .", "the cat likes the fish ."]}
    index["tasks"] |= {"long": long, "free": about | {"labels": []}}
    index["tasks"]["in_part"] = about | {"labels": [], "metrics": ["squad"]}
    index["tasks"]["trained_on"] = long | {"examples": {"train": about["examples"]["train"]}}
    for name in ("long", "free", "in_part", "trained_on"):
        shutil.copytree(path / "tasks/python_subject", path / "tasks" / name)
    (path / "corpus.json").write_text(json.dumps(index))
    return open_corpus(path)


def _run(stage):
    """A run with this stage as both of its stages."""
    return dataclasses.replace(tiny_study.run("transformer"), pretrain=stage, finetune=stage)


def _stage(**settings):
    return dataclasses.replace(STAGE, **settings)


def test_a_label_that_would_be_cut_is_refused(corpus):
    sizes = [len(ids) for ids in corpus.vocabulary.encode(corpus.tasks["long"].labels)]
    most = max(sizes)
    lengths.check_labels(corpus, ("long",), _stage(target_length=most + 1, decode_length=most))
    with pytest.raises(
        InputError, match=f"target_length = {most} cuts a label of long.* has {most + 1} tokens"
    ):
        lengths.check_labels(corpus, ("long",), _stage(target_length=most))
    with pytest.raises(
        InputError, match=f"decode_length = {most - 1} cuts a label of long.* has {most} tokens"
    ):
        lengths.check_labels(corpus, ("long",), _stage(target_length=50, decode_length=most - 1))
    ranked = _stage(target_length=50, decode_length=1, scoring="rank")
    lengths.check_labels(corpus, ("long",), ranked)  # ranking uses whole labels and decodes none


@pytest.mark.parametrize(
    ("task", "scoring"), [("long", "decode"), ("long", "rank"), ("trained_on", "decode")]
)
def test_labels_that_cutting_makes_the_same_are_refused(corpus, task, scoring):
    with pytest.raises(
        InputError, match=f"target_length = 3 makes different labels of {task} the same"
    ):
        lengths.check_labels(corpus, (task,), _stage(target_length=3, scoring=scoring))


def test_free_text_is_refused_where_every_target_would_be_cut(corpus):
    shortest = min(np.diff(corpus.examples("free", "validation").targets.ends, prepend=0))
    lengths.check_labels(corpus, ("free",), _stage(target_length=int(shortest)))
    short = _stage(target_length=int(shortest) - 1)
    with pytest.raises(
        InputError, match=f"target_length = {shortest - 1} cuts every target of free"
    ):
        lengths.check_labels(corpus, ("free",), short)
    lengths.check_labels(corpus, ("in_part",), short)


def test_a_cut_label_is_refused_before_pretraining_and_leaves_nothing(corpus, tmp_path):
    config = tiny_study.run("transformer")
    short = dataclasses.replace(config, finetune=_stage(target_length=20, tasks=("long",)))
    with pytest.raises(InputError, match="cuts a label of long"):
        cell.run_cell(short, corpus, tmp_path, quiet=True)
    assert not (tmp_path / "config.json").exists()
    model, _ = make_model(cell.model_config(config, corpus), 0)
    with pytest.raises(InputError, match="cuts a label of long"):
        tasks.Tasks(corpus, short.finetune, 0, model, None)


def test_inputs_and_targets_that_are_cut_are_counted(corpus):
    stage = _stage(tasks=("python_subject", "free"), input_length=24, target_length=5)
    told = []
    for split in ("train", "validation"):
        for feature, length in (("inputs", 24), ("targets", 5)):
            n = np.diff(getattr(corpus.examples("free", split), feature).ends, prepend=0)
            told.append(
                f"{(n > length).sum()} of {len(n)} {feature} of {split} are cut at {length} tokens"
            )
            assert 0 < (n > length).sum() < len(n)
    told = ", ".join(told)
    found = list(lengths.of_tasks(corpus, _run(stage)))
    assert found == [f"python_subject: {told}", f"free: {told}"]
    assert list(lengths.of_tasks(corpus, _run(_stage(input_length=30)))) == []


@pytest.mark.slow
def test_what_is_cut_is_recorded_once(corpus, tmp_path, capsys):
    stage = _stage(
        steps=6, eval_every=0, input_length=20, tasks=("python_subject",), checkpoint_every=3
    )
    config = dataclasses.replace(
        tiny_study.run("transformer"), pretrain=_stage(steps=3), finetune=stage
    )
    assert cell.run_cell(config, corpus, tmp_path) == "done"
    (event,) = records.read_jsonl(tmp_path / "events.jsonl")
    assert (event["event"], event["stage"], event["step"]) == ("text lost", "finetune", 0)
    assert event["detail"] == list(lengths.of_tasks(corpus, _run(stage)))[0]
    assert capsys.readouterr().err.count(event["detail"]) == 1


def test_tokens_in_no_window_and_windows_in_no_batch_are_counted(corpus, tmp_path):
    path = write_corpus(tmp_path / "old")
    index = json.loads((path / "corpus.json").read_text())
    (name,) = index["pretrain"]["train"]["shards"]
    parts = np.array_split(np.load(path / name)[:600], 13)  # of 46 tokens or 47; a window has 27
    names = [f"pretrain/train-{i:05d}.npy" for i in range(13)]
    index["files"] |= {
        n: shards.write_array(path / n, part) for n, part in zip(names, parts, strict=True)
    }
    index["pretrain"]["train"] |= {"shards": names, "tokens": 600}
    (path / "corpus.json").write_text(json.dumps(index | {"format": 1}))
    length = batches.Pretrain(corpus, "train", BatchShape(8, 24, 12), 0)._objective.raw_length
    share = f"{600 - 13 * length} of 600 tokens of train ({1 - 13 * length / 600:.0%})"
    told = f"{share} are in no window; prepared anew"
    assert list(lengths.of_pretraining(open_corpus(path), _run(STAGE)))[0].startswith(told)
    (path / "corpus.json").write_text(json.dumps(index))
    assert not any(
        "train" in line for line in list(lengths.of_pretraining(open_corpus(path), _run(STAGE)))
    )
    windows = batches.Pretrain(corpus, "validation", BatchShape(1, 24, 12), 0).num_windows
    rest = _stage(eval_batch_size=windows - 20, eval_batches=9)
    why = f"they do not fill a batch of eval_batch_size = {windows - 20}"
    assert list(lengths.of_pretraining(corpus, _run(rest))) == [
        f"20 of {windows} windows of validation are not evaluated: {why}"
    ]
