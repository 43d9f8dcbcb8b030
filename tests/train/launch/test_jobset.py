"""JobSets: against a golden file, and against names and types of the published schema."""

import json
from pathlib import Path

import pytest

from tests.train import tiny_study
from tests.train.launch import twelve_cells
from train.__main__ import main
from train.launch import jobset
from train.records import InputError

HERE = Path(__file__).parent
SLICE = jobset.Slice(
    "registry.example/arch-scaling:1", tpu="v5e", topology="4x4", slices=2, queue="research"
)


def _made(slice_=SLICE, programs=(("transformer-nano-s0",),)):
    return jobset.manifests(
        tiny_study.study(), Path("/data/runs/tiny"), Path("/data/corpora/c4"), programs, slice_
    )


def test_the_manifest_is_the_golden_one(request):
    text = (
        json.dumps({"cells": _made(), "queue": jobset.queue("research", SLICE, 64)}, indent=2)
        + "\n"
    )
    golden = HERE / "jobset_golden.json"
    if request.config.getoption("--rewrite-goldens"):
        golden.write_text(text)
    assert text == golden.read_text()


def _check(value, names, where):
    """Checks that every key of `value` is in the schema, and every value of the schema's type."""
    if isinstance(names, dict):
        assert isinstance(value, dict), where
        for key, inner in value.items():
            assert key in names or "*" in names or not names, f"{where}.{key}"
            _check(inner, names.get(key, names.get("*", "any")), f"{where}.{key}")
    elif isinstance(names, list):
        assert isinstance(value, list), where
        for element in value:
            _check(element, names[0], where)
    elif names in ("integer", "string", "boolean"):
        assert type(value).__name__[:3] == names[:3], f"{where} = {value!r}"


@pytest.mark.parametrize("slices", [1, 2])
def test_field_names_are_those_of_the_published_schema(slices):
    names = json.loads((HERE / "jobset_names.json").read_text())["names"]
    for item in _made(jobset.Slice("image", slices=slices))["items"]:
        assert (item["apiVersion"], item["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
        _check(item["spec"], names["spec"], "spec")
    broken = _made()["items"][0]["spec"]
    broken["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 4
    with pytest.raises(AssertionError, match="paralelism"):
        _check(broken, names["spec"], "spec")


@pytest.mark.parametrize(
    ("topology", "hosts", "chips"), [("1x1", 1, 1), ("2x2", 1, 4), ("4x4", 4, 4), ("2x2x4", 4, 4)]
)
def test_hosts_and_chips_follow_from_the_topology(topology, hosts, chips):
    job = _made(jobset.Slice("image", topology=topology))["items"][0]["spec"]["replicatedJobs"][0][
        "template"
    ]["spec"]
    assert job["parallelism"] == job["completions"] == hosts
    assert job["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "google.com/tpu": chips
    }


def test_names_are_dns_labels_that_differ():
    cells = [f"transformer-base-DM1280-FF5120-NH20-width-s{seed}" for seed in range(3)]
    programs = [*((cell,) for cell in cells), cells[:2], cells]
    names = [item["metadata"]["name"] for item in _made(programs=programs)["items"]]
    assert len(set(names)) == 5
    assert all(
        len(name) <= 40 and name == name.lower() and not name.endswith("-") for name in names
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tpu": "v9"}, "tpu = 'v9' is not one of v3, v4"),
        ({"topology": "4"}, "topology = '4' is not of the form"),
        ({"topology": "2x3"}, "no whole number of hosts makes 2x3"),
    ],
)
def test_slices_that_no_cluster_has_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        jobset.Slice("image", **options)


def _verb(study, *more):
    where = ["--runs", "/data/runs", "--corpus", "/data/corpora/c4", "--dry-run"]
    return main(["jobset", "--config", study.__file__, *where, *more])


def _commands(capsys):
    items = json.loads(capsys.readouterr().out)["items"]
    pods = [
        item["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"] for item in items
    ]
    return [pod["containers"][0]["command"][3:] for pod in pods]


def test_the_verb_prints_what_kubectl_takes(capsys):
    assert _verb(tiny_study) == 0
    assert _commands(capsys)[1] == ["/data/runs/tiny", "/data/corpora/c4", "--cell", "glu-nano-s0"]
    assert _verb(tiny_study, "--cells", "mos-*") == 2
    assert "cells: nothing matches mos-*" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_that_go_together_are_one_jobset_on_one_chip(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the cache of counts is in this directory
    names = [f"transformer-nano-s{seed}" for seed in range(12)]
    assert _verb(twelve_cells, "--vmap-seeds", "always", "--topology", "1x1") == 0
    assert _commands(capsys) == [["/data/runs/twelve", "/data/corpora/c4", "--cell", *names]]
    assert (
        _verb(twelve_cells, "--vmap-seeds", "auto", "--topology", "1x1") == 0
    )  # so few steps that only the start-up counts
    assert len(_commands(capsys)) == 1
    long = ("--set", "pretrain.steps=1000000000")
    assert (
        _verb(twelve_cells, "--vmap-seeds", "auto", "--topology", "1x1", *long) == 0
    )  # without a calibration
    assert len(_commands(capsys)) == 12
    assert _verb(twelve_cells, "--vmap-seeds", "always") == 2
    assert "vmap_seeds: needs a slice of one chip, not 1 of 4x4" in capsys.readouterr().err
