"""What `prepare` can make: names of pretraining text and of downstream tasks, as definitions. Imports TensorFlow."""

import functools

from train.data import python_text
from train.records import InputError
from train.tasks import python_tasks, registry


@functools.cache
def _python() -> python_text.PythonText:
    return python_text.read()


def pretraining(source: str) -> registry.Definition:
    """The pretraining text of that name.

    Raises:
      InputError: no such text.
    """
    if source == "python":
        return python_tasks.pretraining(_python())
    raise InputError(f"source = {source!r} is not one of python")


def downstream(names: tuple[str, ...]) -> list[registry.Definition]:
    """The downstream tasks of those names; the name of a suite stands for all of its tasks.

    Raises:
      InputError: no such task.
    """
    known = {"python": lambda: python_tasks.downstream(_python())}
    definitions = []
    for name in names:
        if name not in known:
            raise InputError(f"tasks: {name!r} is not one of {', '.join(known)}")
        definitions += known[name]()
    return definitions
