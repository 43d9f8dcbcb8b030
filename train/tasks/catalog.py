"""Definitions, by name, of all pretraining texts and downstream tasks that `prepare` can make.

Imports TensorFlow.
"""

import functools
import importlib

import seqio

from train.data.prepare_config import PrepareConfig
from train.data.text import python_text, text_files
from train.records import InputError
from train.tasks import benchmarks, own_tasks, python_tasks, seqio_tasks
from train.tasks.task_table import SUITES

_read_python = functools.cache(python_text.read)


def load(modules: tuple[str, ...]) -> None:
    """Imports a user's modules, which add to seqio's registries.

    Raises:
      InputError: a module does not exist.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"modules: {name!r} cannot be imported ({error})") from None


def pretraining(
    config: PrepareConfig, share: float = text_files.VALIDATION_SHARE
) -> seqio_tasks.Definition:
    """The pretraining text with the name `config.source`.

    Args:
      config: what to prepare.
      share: share of held-out documents, for the user's own files.

    Raises:
      InputError: there is no such text.
    """
    if config.source == "python":
        return python_tasks.pretraining(_read_python(config.python_root))
    if config.source == "c4":
        return benchmarks.c4(config.data_dir or None)
    if config.source == "text":
        return own_tasks.text(config.text, config.text_key or "text", share)
    if config.source in {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}:
        return seqio_tasks.Definition(config.source, None, ())
    raise InputError(
        f"source = {config.source!r} is not python, c4, text or a task or mixture that `modules` "
        "register"
    )


def downstream(config: PrepareConfig) -> list[seqio_tasks.Definition]:
    """The downstream tasks in `config.tasks`: suites, single tasks of them, or NAME=FILES:METRIC.

    Raises:
      InputError: there is no such task; or one is named twice, or has a name that `modules`
        register.
    """
    found: dict[str, seqio_tasks.Definition] = {}
    for name in config.tasks:
        tasks = [own_tasks.table(name)] if "=" in name else _of_suite(name, config)
        for task in tasks:
            if task.name in found:
                raise InputError(
                    f"tasks: {name!r} gives {task.name!r}, which another one gives already"
                )
            if "=" in name and seqio_tasks.is_taken(task.name):
                raise InputError(
                    f"tasks: {name!r}: modules register another {task.name!r}; give yours another "
                    "name"
                )
            found[task.name] = task
    return list(found.values())


def _of_suite(name: str, config: PrepareConfig) -> list[seqio_tasks.Definition]:
    suite = next(
        (s for s in sorted(SUITES, key=len, reverse=True) if name == s or name.startswith(f"{s}_")),
        None,
    )
    tasks = [task for task in _suite(suite, config) if name in (suite, task.name)] if suite else []
    if not tasks:
        raise InputError(
            f"tasks: {name!r} is not {', '.join(SUITES)}, a task of theirs, or NAME=FILES:METRIC"
        )
    return tasks


def _suite(name: str, config: PrepareConfig) -> list[seqio_tasks.Definition]:
    data_dir = config.data_dir or None
    if name == "python":
        return python_tasks.downstream(_read_python(config.python_root))
    suites = {
        "glue": benchmarks.glue,
        "super_glue": benchmarks.super_glue,
        "squad": benchmarks.squad_v1,
        "dpr": benchmarks.dpr,
    }
    return suites[name](data_dir)
