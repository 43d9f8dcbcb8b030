"""The coordinate check finds what grows with the width or the depth, and what does not."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from train.__main__ import main
from train.measures import coordinates
from train.measures.coordinates import LOGITS, Outputs
from train.measures.settings import Coordinates
from train.records import InputError
from train.run.step import make_model

SMALL = Coordinates(size="nano", multiples=(1, 2, 4), seeds=2, rows=4, length=16, vocab=64)


def _verdicts(settings):
    return {one.name: one.verdict for one in coordinates.check(settings)}


@pytest.mark.slow
def test_mup_passes_where_one_rate_for_all_widths_fails():
    carried = _verdicts(SMALL)
    assert "fails" not in carried.values()
    plain = _verdicts(dataclasses.replace(SMALL, parametrization="standard"))
    assert plain["decoder.block.feed_forward.layer"] == plain["encoder.block"] == "fails"
    assert set(plain) == set(carried)


@pytest.mark.slow
def test_completep_passes_where_mup_fails_with_depth():
    deep = dataclasses.replace(SMALL, along="depth", family="decoder_only")
    assert _verdicts(deep)["decoder"] == "fails"
    carried = _verdicts(dataclasses.replace(deep, parametrization="completep"))
    assert "fails" not in carried.values()


def _outputs(exponent, name="decoder", noise=0.0):
    rng, sizes = np.random.default_rng(0), (32, 64, 128, 256)
    base = np.array(sizes, float)[:, None] ** exponent
    change = base * np.exp(noise * rng.normal(size=(4, 5)))
    return Outputs(name, sizes, np.stack([change, change]), change[None], SMALL)


def test_slopes_are_exponents_and_their_verdict_follows_the_interval():
    slope, low, high = _outputs(0.7).slope(_outputs(0.7).change[0])
    assert (slope, low, high) == pytest.approx((0.7, 0.7, 0.7))
    assert _outputs(0.7).verdict == _outputs(-0.7).verdict == "fails"
    assert _outputs(0.1).verdict == _outputs(-0.1).verdict == "passes"
    assert _outputs(0.1, noise=1.0).verdict == "cannot be told"
    # Logits may shrink like D^-1/2, and may not grow.
    assert _outputs(-0.6, LOGITS).verdict == "passes" and _outputs(0.3, LOGITS).verdict == "fails"


def test_outputs_are_those_of_the_last_block():
    cfg = arch_zoo.config("transformer", "nano", vocab_size=64, family="decoder_only")
    model, params = make_model(cfg, 0)
    tokens = jnp.arange(2, 18).reshape(2, 8)
    batch = {"decoder_input_tokens": tokens, "decoder_target_tokens": tokens}
    found = coordinates.outputs(model, params, batch)
    merged = model.merge(params)
    states = merged.states(batch)
    np.testing.assert_allclose(found["decoder.block"], states[-2], atol=1e-6)
    np.testing.assert_array_equal(found[LOGITS], merged(batch).logits)
    assert type(merged.decoder) is type(model.merge(params).decoder)


def test_fewer_than_two_sizes_are_refused(capsys):
    with pytest.raises(InputError, match="multiples"):
        Coordinates(multiples=(2, 2))
    assert main(["coordinates", "--figure", "a.pdf"]) == 2
    assert "a.pdf" in capsys.readouterr().err


def test_the_verb_prints_a_table_and_draws_a_figure(tmp_path, capsys):
    figure = tmp_path / "check.png"
    options = "--size nano --family decoder_only --multiples 1 2 4 --seeds 2 --steps 1 --rows 2"
    code = main(["coordinates", *options.split(), "--length", "8", "--figure", str(figure)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("transformer, mup, adamw at rate 0.003, width 32, 64, 128, 2 seeds")
    assert any(line.startswith("decoder.block.self_attention.layer") for line in lines)
    assert code == int(" 0 fail" not in lines[-1])
    assert figure.read_bytes().startswith(b"\x89PNG")
