"""A stack of blocks: scanned where it is asked for, and a context whose settings are no arrays."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core as jex_core

from arch_zoo.layers.context import Context
from tests.arch_zoo import models


def scans(jaxpr) -> list[int]:
    """The lengths of all loops of a program."""
    found = []
    for eqn in jaxpr.eqns:
        found += [eqn.params["length"]] if eqn.primitive.name == "scan" else []
        for inner in jex_core.jaxprs_in_params(eqn.params):
            found += scans(inner)
    return found


@pytest.mark.parametrize(("scan_layers", "lengths"), [(False, []), (True, [6, 6])])
def test_blocks_are_looped_over_where_that_is_asked_for(scan_layers, lengths):
    model = models.build(models.config("transformer", "nano-NL6", scan_layers=scan_layers))
    tokens = jnp.ones((1, 4), jnp.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": tokens,
    }
    assert scans(jax.make_jaxpr(lambda: model(batch).logits)().jaxpr) == lengths


def test_what_a_context_says_of_the_program_is_no_array():
    """A loop over blocks would carry it as a number that no `if` can ask."""
    ids = jnp.ones((1, 4), jnp.int32)
    ctx = Context(
        ids,
        ids,
        causal=True,
        packed=True,
        train=True,
        dropout_rate=0.1,
        max_length=7,
        expert_axis="expert",
    )
    assert len(jax.tree.leaves(ctx)) == 2
    again = jax.tree.map(lambda x: x + 1, ctx)
    assert (again.packed, again.expert_axis, again.max_length) == (True, "expert", 7)
