"""What `prepare` can make: names of pretraining text and of downstream tasks, as definitions. Imports TensorFlow."""

import functools

from train.data import python_text
from train.data.prepare import PrepareConfig
from train.records import InputError
from train.tasks import python_tasks, registry

_read_python = functools.cache(python_text.read)


def pretraining(config: PrepareConfig) -> registry.Definition:
    """The pretraining text that `config.source` names.

    Raises:
      InputError: no such text.
    """
    if config.source == "python":
        return python_tasks.pretraining(_read_python(config.python_root))
    raise InputError(f"source = {config.source!r} is not one of python")


def downstream(config: PrepareConfig) -> list[registry.Definition]:
    """The downstream tasks that `config.tasks` names; the name of a suite stands for all of its tasks.

    Raises:
      InputError: no such task.
    """
    suites = {"python": lambda: python_tasks.downstream(_read_python(config.python_root))}
    definitions = []
    for name in config.tasks:
        if name not in suites:
            raise InputError(f"tasks: {name!r} is not one of {', '.join(suites)}")
        definitions += suites[name]()
    return definitions
