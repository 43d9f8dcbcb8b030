"""Checkpoints: which are kept, and what happens if a file is damaged."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.records import InputError
from train.run.checkpoint import Checkpoints, word_sum

# If one read of a checkpoint fails, Orbax abandons the others, and Python warns that they were
# never awaited.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _items(value):
    params = {f"encoder.{i}.kernel": jnp.full((64, 32), float(value + i)) for i in range(3)}
    return {"params": params, "optimizer": {"step": jnp.int32(value), "state": (params,)}}


def _targets():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), _items(0.0)
    )


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Checkpoints of steps 1, 2 and 3, the first of which is the best."""
    directory = tmp_path_factory.mktemp("checkpoints") / "pretrain"
    with Checkpoints(directory, best=("nll",)) as checkpoints:
        for step, nll in ((1, 1.0), (2, 3.0), (3, 2.0)):
            checkpoints.save(step, _items(step), {"hash": "h"}, {"nll": nll})
    return directory


def _restored(directory):
    with Checkpoints(directory) as checkpoints:
        restored = checkpoints.restore(_targets())
    assert restored is not None
    items, meta = restored
    assert meta["hash"] == "h"
    jax.tree.map(np.testing.assert_array_equal, items, _items(meta["step"]))
    return meta["step"]


def test_the_newest_is_restored_bit_for_bit(three):
    assert _restored(three) == 3


def test_no_checkpoint_is_no_error(tmp_path):
    with Checkpoints(tmp_path / "empty") as checkpoints:
        assert checkpoints.restore(_targets()) is None


def test_the_parameters_can_be_read_alone(three):
    with Checkpoints(three) as checkpoints:
        restored = checkpoints.restore({"params": _targets()["params"]})
    assert restored is not None
    assert list(restored[0]) == ["params"]


@pytest.mark.slow
def test_the_last_two_the_best_and_the_milestones_are_kept(tmp_path):
    losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 3.5, 6: 3.2}
    with Checkpoints(tmp_path / "c", keep_every=3, best=("nll",)) as checkpoints:
        for step, nll in losses.items():
            checkpoints.save(step, _items(step), {"hash": "h"}, {"nll": nll})
        checkpoints.save(7, _items(7), {"hash": "h"})  # without an evaluation
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3, 6, 7]


@pytest.mark.slow
def test_the_best_checkpoint_of_each_task_is_kept(tmp_path):
    scores = {
        1: {"a": 5.0, "b": 1.0},
        2: {"a": 1.0, "b": 7.0},
        3: {"a": 5.0},
        4: {"b": 2.0},
        5: {},
        6: {"a": 0.0},
    }
    for (
        step,
        score,
    ) in scores.items():  # opened again each time, as after a kill: the scores are on disk
        with Checkpoints(tmp_path / "c", best=("a", "b")) as checkpoints:
            checkpoints.save(step, _items(step), {"hash": "h"}, score)
            checkpoints.wait()
            kept = checkpoints.steps()
    assert kept == [2, 3, 5, 6]  # of two equal scores the newer one


def test_a_reader_removes_nothing_from_the_directory_of_another_run(three, tmp_path):
    copy = tmp_path / "pretrain"
    shutil.copytree(three, copy)
    unfinished = copy / "4.orbax-checkpoint-tmp"  # an unfinished save
    unfinished.mkdir()
    max(_files(copy / "3" / "params"), key=lambda path: path.stat().st_size).write_bytes(b"")
    with Checkpoints(copy, read_only=True) as checkpoints:
        restored = checkpoints.restore(_targets())
    assert restored is not None and restored[1]["step"] == 2
    assert unfinished.is_dir() and (copy / "3").is_dir()


def _files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncate", "delete", "flip"])
def test_any_damaged_file_costs_at_most_its_own_checkpoint(three, tmp_path, damage):
    skipped = 0
    for number, file in enumerate(_files(three / "3")):
        copy = tmp_path / str(number) / "pretrain"
        shutil.copytree(three, copy)
        victim = copy / file.relative_to(three)
        content = victim.read_bytes()
        if damage == "delete":
            victim.unlink()
        elif damage == "truncate":
            victim.write_bytes(content[: len(content) // 2])
        else:
            middle = len(content) // 2
            victim.write_bytes(
                content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]
            )
        step = _restored(copy)
        assert step in (2, 3)  # 3 if the file is not needed for reading
        skipped += step == 2
        if step == 2:
            assert (copy.with_name("pretrain-damaged") / "3").is_dir() or not (copy / "3").exists()
    assert skipped >= 3


def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_its_step_saved_again(
    three, tmp_path, caplog
):
    copy = tmp_path / "pretrain"
    shutil.copytree(three, copy)
    data = max(_files(copy / "3" / "params"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-40])
    assert _restored(copy) == 2
    assert "checkpoint 3 cannot be read and is skipped" in caplog.text
    assert (tmp_path / "pretrain-damaged" / "3").is_dir()
    with Checkpoints(copy) as checkpoints:
        checkpoints.save(3, _items(3), {"hash": "h"}, {"nll": 2.0})
    assert _restored(copy) == 3


def test_a_path_that_orbax_could_not_read_back_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has '\[' in its path"):
        Checkpoints(tmp_path / "mesh[2,2,1]")


def test_where_none_can_be_read_the_error_says_so(three, tmp_path):
    copy = tmp_path / "pretrain"
    shutil.copytree(three, copy)
    for step in (1, 2, 3):
        (meta,) = (copy / str(step)).glob("meta/metadata")
        meta.write_text(json.dumps({"step": step}))
    with pytest.raises(InputError, match="none of the checkpoints"):
        _restored(copy)


def test_a_word_sum_tells_a_flipped_bit_and_an_exchange():
    rng = np.random.default_rng(0)
    tree = [
        jnp.asarray(rng.normal(size=(5, 7)), dtype) for dtype in (jnp.float32, jnp.bfloat16)
    ] + [jnp.int32(3)]
    sums = {word_sum(tree)}
    for number, leaf in enumerate(tree):
        bits = np.asarray(leaf).reshape(-1).view(f"uint{8 * leaf.dtype.itemsize}").copy()
        bits[-1] ^= 1 << (number + 3)
        flipped = jnp.asarray(bits.view(leaf.dtype).reshape(leaf.shape))
        sums.add(word_sum([*tree[:number], flipped, *tree[number + 1 :]]))
    sums.add(word_sum([tree[0][::-1], *tree[1:]]))
    assert len(sums) == 5
    assert word_sum(jax.device_put(tree)) in sums
