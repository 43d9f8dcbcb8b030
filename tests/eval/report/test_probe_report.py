"""What a report says of probes, from simulated records: page, figures, sentences, files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eval.__main__ as evaluation
from eval.analyses.everything import analyse
from eval.data.study import read_study
from eval.report import probe_report, summary, write
from tests.eval.run_directories import ZOO, write_study
from train.records import write_json

pytestmark = pytest.mark.slow  # each analysis of a study takes seconds

NAMES = (*ZOO[:6], "transformer")
RATES = (0.001, 0.003, 0.01)
PROBES = {
    "parity": {"tested": [48, 64]},
    "mqar-pairs4": {"task": "mqar", "pairs": 4},
    "mqar-pairs8": {"task": "mqar", "pairs": 8},
}


def _write_probes(root: Path, scores=lambda number, probe: 50.0 + 5 * number) -> Path:
    """Every architecture on each probe, at three rates with two seeds."""
    plain = write_study(root / "plain", NAMES, sizes=("nano",), seeds=2, tasks=())
    study = root / "probes"
    for number, name in enumerate(NAMES):
        for protocol, settings in PROBES.items():
            for rate in RATES:
                for seed in (0, 1):
                    _write_run(
                        plain / f"{name}-nano-s{seed}",
                        study,
                        f"{protocol}-learning_rate{rate}",
                        {"task": protocol, **settings},
                        rate,
                        scores(number, protocol) - 10 * (rate != 0.003) + seed,
                    )
    return study


def _write_run(source: Path, study: Path, protocol: str, probe: dict, rate: float, score: float):
    config = json.loads((source / "config.json").read_text())
    run_id = f"{config['architecture']}-nano-{protocol}-s{config['seed']}"
    config |= {"run_id": run_id, "protocol": protocol, "finetune": None, "study": study.name}
    config["pretrain"] |= {"probe": probe, "optimizer": {"learning_rate": rate}}
    config["data"] = {"name": f"probe {probe['task']}", "fingerprint": str(probe)}
    shutil.copytree(source, study / run_id)
    write_json(study / run_id / "config.json", config)
    told = [("validation", "nll", 1.0), ("validation", "accuracy", score)]
    told += [("test", "accuracy", score), ("test", "chance", 12.5), ("test", "seen", 0.0)]
    if probe["task"] == "parity":
        told += [("test", "accuracy_48", score + 2), ("test", "accuracy_64", score - 2)]
    common = {"step": 100, "stage": "pretrain", "task": probe["task"], "n": 80, "stderr": 1.0}
    rows = [{**common, "split": s, "metric": m, "value": v} for s, m, v in told]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (study / run_id / "evals.jsonl").write_text(text)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Probes, and a study of scaling whose architectures are ordered in the same way."""
    root = tmp_path_factory.mktemp("studies")
    return _write_probes(root), write_study(root, NAMES, sizes=("nano", "micro", "milli", "tiny"))


@pytest.fixture(scope="module")
def analysis(studies):
    probes, scaling = studies
    return analyse(read_study(probes), scaling=read_study(scaling))


def test_runs_on_probes_have_no_loss_to_compare_and_no_warning_about_it(analysis):
    assert analysis.study.runs["upstream_nll"].isna().all()
    assert not [w for w in analysis.study.warnings if "corpora" in w or "held-out loss" in w]


def test_text_beside_probes_is_still_one_corpus_and_two_are_refused(studies, tmp_path):
    probes, scaling = studies
    shutil.copytree(probes, tmp_path / "both" / "probes")
    shutil.copytree(scaling, tmp_path / "both" / "text")
    study = read_study(tmp_path / "both")
    assert analyse(study).results["slopes"]["n_sizes"].max() == 4
    first = next(path for path in (tmp_path / "both" / "text").iterdir())
    config = json.loads((first / "config.json").read_text())
    config["data"] = {"name": "another", "fingerprint": "f"}
    write_json(first / "config.json", config)
    with pytest.raises(Exception, match="losses of different corpus values cannot be compared"):
        analyse(read_study(tmp_path / "both"))


def test_the_relation_is_that_of_the_two_orders(analysis):
    relation = analysis.results["probe_relation"].set_index(["probe", "measure"])
    # The simulated zoo: later names have a lower loss, and a flatter slope.
    row = relation.loc["parity, tested 48/64", "level"]
    assert row["architectures"] == 7 and row["spearman"] == pytest.approx(1.0, abs=0.2)
    assert relation.loc["parity, tested 48/64", "slope"]["spearman"] < 0.2
    assert set(relation.index.get_level_values(0)) >= {"mqar, pairs 4", "mqar, pairs 8"}


def test_sentences_name_what_is_significant_or_say_that_nothing_is(analysis):
    first, *rest = summary.sentences(analysis)
    assert first == (
        "126 finished runs on 3 probes: 7 architectures, at most 3 learning rates and 2 seeds each."
    )
    said = " ".join(rest)
    assert len(rest) == 2 and summary.warnings(analysis) == list(analysis.study.warnings)
    assert "mqar, pairs 4: transformer 80 % (guessing 12 %)" in said
    assert "After correction, these differ from zero" in said
    assert "with the level" in said
    relation = analysis.results["probe_relation"].assign(p_holm=1.0)
    quiet = analysis.__class__(
        **{**analysis.__dict__, "results": {**analysis.results, "probe_relation": relation}}
    )
    text = summary.of_probes(quiet)
    assert "After correction, none differs from zero" in text
    few = relation.assign(architectures=2)
    quiet.results["probe_relation"] = few
    assert "fewer than three architectures" in summary.of_probes(quiet)
    del quiet.results["probe_relation"]
    assert "--with runs/NAME" in summary.of_probes(quiet)


def test_the_heat_map_shows_every_score(analysis):
    figure = probe_report.heat_map(analysis.results["probes"])
    (axes,) = figure.axes
    assert axes.images[0].get_array().shape == (7, 3)
    shown = [text.get_text() for text in axes.texts]
    for row in analysis.results["probes"].to_dict("records"):
        assert f"{row['score']:.0f}" in shown
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "mqar\npairs 4\n(12)", "mqar\npairs 8\n(12)", "parity\n(12)",
    ]  # fmt: skip


def test_the_curves_have_a_panel_for_each_task(analysis):
    curves = analysis.results["probe_curves"]
    figure = probe_report.draw_curves(curves, analysis.results["probes"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["mqar", "parity"]
    lines = figure.axes[0].containers
    assert len(lines) == 7 and list(lines[0][0].get_xdata()) == [4.0, 8.0]


def test_the_report_has_the_section_and_the_files(studies, tmp_path, capsys):
    probes, scaling = studies
    out = tmp_path / "report"
    command = ["report", str(probes), "--out", str(out), "--with", str(scaling)]
    assert evaluation.main(command) == 0
    assert "The highest score on each probe" in capsys.readouterr().out
    tables = ("probes", "probe_means", "probe_curves", "probe_relation")
    for name in (*(f"{table}.csv" for table in tables), "probes.png"):
        assert (out / "analyses" / name).exists()
    page = (out / "report.html").read_text()
    assert "Do the scores order architectures" in page
    assert "Mean over the settings of a task" in page
    # Of a study of probes alone, the page begins with them.
    assert 0 < page.index('id="probes"') < page.index("Claims of the paper</h2>")
    table = pd.read_csv(out / "analyses" / "probes.csv")
    assert np.allclose(table["chance"], 12.5) and len(table) == 21
    assert evaluation.main(["report", str(scaling), "--out", str(out)]) == 0
    assert not (out / "analyses" / "probes.png").exists()


def test_names_from_records_are_escaped(tmp_path):
    scores = lambda number, probe: 50.0 + number
    study = _write_probes(tmp_path, scores)
    for path in study.glob("glu-*"):
        config = json.loads((path / "config.json").read_text())
        config["pretrain"]["probe"]["note"] = "<b>&"
        write_json(path / "config.json", config)
    write.write(read_study(study), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "note &lt;b&gt;&amp;" in page and "note <b>" not in page
