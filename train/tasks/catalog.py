"""What `prepare` can make: names of pretraining text and of downstream tasks, as definitions. Imports TensorFlow."""

import functools
import importlib

import seqio

from train.data import python_text
from train.data.prepare import PrepareConfig
from train.records import InputError
from train.tasks import benchmarks, files, python_tasks, registry

_SUITES = ("python", "glue", "super_glue", "squad", "dpr")

_read_python = functools.cache(python_text.read)


def load(modules: tuple[str, ...]) -> None:
    """Imports a user's modules, which add to seqio's registries.

    Raises:
      InputError: no such module.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"modules: {name!r} cannot be imported ({error})") from None


def pretraining(config: PrepareConfig) -> registry.Definition:
    """The pretraining text that `config.source` names.

    Raises:
      InputError: no such text.
    """
    if config.source == "python":
        return python_tasks.pretraining(_read_python(config.python_root))
    if config.source == "c4":
        return benchmarks.c4(config.data_dir or None)
    if config.source == "text":
        return files.text(config.text, config.text_key)
    if config.source in {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}:
        return registry.Definition(config.source, None, ())
    raise InputError(f"source = {config.source!r} is not python, c4, text or a task or mixture that `modules` register")


def downstream(config: PrepareConfig) -> list[registry.Definition]:
    """The downstream tasks that `config.tasks` names: suites, single tasks of them, or NAME=FILES:METRIC.

    Raises:
      InputError: no such task.
    """
    found: dict[str, registry.Definition] = {}
    for name in config.tasks:
        tasks = [files.table(name)] if "=" in name else _of_suite(name, config)
        found |= {task.name: task for task in tasks}
    return list(found.values())


def _of_suite(name: str, config: PrepareConfig) -> list[registry.Definition]:
    suite = next((s for s in sorted(_SUITES, key=len, reverse=True) if name == s or name.startswith(f"{s}_")), None)
    tasks = [task for task in _suite(suite, config) if name in (suite, task.name)] if suite else []
    if not tasks:
        raise InputError(f"tasks: {name!r} is not {', '.join(_SUITES)}, a task of theirs, or NAME=FILES:METRIC")
    return tasks


def _suite(name: str, config: PrepareConfig) -> list[registry.Definition]:
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
