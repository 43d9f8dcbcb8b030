"""Turns text and tasks into a corpus that the trainer can memory-map.

seqio reads the data and SentencePiece tokenizes it. The work is divided into parts (see
`part_files`), each a pure function of the configuration. So a killed run continues, damage is
repaired part by part, and several workers share the work. The worker that finishes last writes the
index. Importing this module is fast; seqio and TensorFlow are imported only if there is something
to make.
"""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.data import part_files, random_tokens, shards
from train.data.corpus import FORMAT, INDEX, PARTS, Corpus, open_corpus
from train.data.prepare_config import COUNTS, PrepareConfig
from train.data.text import overlap, text_files
from train.data.text.vocabulary import Vocabulary
from train.records import InputError, read_json, write_json
from train.tasks import quiet

if TYPE_CHECKING:
    from train.tasks.seqio_tasks import Definition

Say = Callable[[str], None]


def prepare(config: PrepareConfig, say: Say | None = None) -> Corpus:
    """Makes the missing or damaged parts of a corpus.

    If everything is there, it does nothing, and imports nothing heavy.

    Args:
      config: what to make, and where.
      say: called with each line of progress; None prints them to stderr.

    Returns:
      The open corpus. A worker waits for the parts of the others.

    Raises:
      InputError: the configuration, or text that it names, is invalid.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    root = Path(config.out)
    try:
        (root / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out = {config.out!r} cannot be written ({error.strerror})") from None
    if config.vocabulary:
        Vocabulary(Path(config.vocabulary), config.num_sentinels)
    text_files.check_key(text_files.expand(config.text), config.text_key)
    shards.remove_leftovers(root, config.patience if config.share[1] > 1 else 0)
    key = part_files.key(
        config.text_identity,
        config.tasks_identity,
        config.shard_counts,
        config.max_tokens,
        config.decontaminate,
    )
    corpus = _finished(root, key, say)
    if corpus is None and config.source == "random":
        symbols, tokens = config.random_size
        random_tokens.write(root, key, symbols, tokens)
        corpus = open_corpus(root)
        say(f"prepare: {root}: {tokens:,} tokens, fingerprint {corpus.fingerprint[:12]}")
    elif corpus is None:
        corpus = _make(config, root, key, say)
    return corpus


def _finished(root: Path, key: str, say: Say) -> Corpus | None:
    if not (root / INDEX).exists() or read_json(root / INDEX).get("key") != key:
        return None
    try:
        return open_corpus(root)
    except InputError as error:
        say(f"prepare: repairing: {error}")
        return None


def _make(config: PrepareConfig, root: Path, key: str, say: Say) -> Corpus:
    say("prepare: loading seqio and TensorFlow")
    catalog = quiet.catalog()
    from train.tasks import seqio_tasks

    catalog.load(config.modules)
    text, definitions = catalog.pretraining(config), catalog.downstream(config)
    for definition in (text, *definitions):
        if definition.source is not None:  # otherwise a user's module has registered it
            seqio_tasks.register(definition)
    with part_files.Team(root, *config.share, config.patience) as team:
        facts = _make_parts(config, root, say, team, text, definitions)
    index = _index(config, key, facts, definitions)
    write_json(root / INDEX, index)
    train = index["pretrain"]["train"]
    for line in _lost(index):
        say(f"prepare: {line}")
    if train["duplicates"]:
        say(
            "prepare: documents left out, since they hold text of downstream validation examples: "
            f"{train['duplicates']:,}"
        )
    examples = sum(task["examples"]["train"] for task in index["tasks"].values())
    say(
        f"prepare: {root}: {train['tokens']:,} tokens, {index['vocab_size']:,} ids, "
        f"{_tasks(len(index['tasks']))} with {examples:,} examples to train on, "
        f"fingerprint {index['fingerprint'][:12]}"
    )
    return open_corpus(root, verify=False)


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _make_parts(
    config: PrepareConfig,
    root: Path,
    say: Say,
    team: part_files.Team,
    text: "Definition",
    definitions: list["Definition"],
) -> dict[str, part_files.Facts]:
    """Makes, or waits for, the vocabulary and then all other parts; returns facts by name."""
    from train.data import builders
    from train.tasks import catalog, seqio_tasks

    vocabulary = builders.vocabulary(config, text)
    if config.source == "text" and team.number == 0 and vocabulary.done(root) is None:
        size = sum(os.path.getsize(file) for file in text_files.expand(config.text)) / 1e6
        say(
            f"prepare: text: reading {size:,.1f} MB once, to check them and to draw what the "
            "vocabulary is trained on"
        )
    facts = {"vocabulary": _one(root, vocabulary, say, lambda line: say(f"prepare: {line}"), team)}
    pieces = Vocabulary(root / "vocabulary.model", config.num_sentinels)
    made_from = facts["vocabulary"]["files"]
    if found := facts["vocabulary"].get("survey"):
        for line in text_files.Survey(**found).said(
            text_files.piece_size(text_files.expand(config.text))
        ):
            say(f"prepare: {line}")
        text = catalog.pretraining(config, found["share"])
        seqio_tasks.register(text)
    held_out = (
        builders.held_out_passages(definitions) if config.decontaminate else overlap.Passages([])
    )
    plan = [
        *builders.pretraining(config, text, pieces, held_out, made_from),
        *builders.tasks(config, definitions, pieces, made_from),
    ]
    last = time.monotonic()
    for place in team.order(len(plan)):
        part, lines = plan[place], []
        facts[part.name] = _one(root, part, say, lines.append, team, place)
        if lines and time.monotonic() - last >= config.log_every:
            say(f"prepare: {lines[-1]}, {place + 1} of {len(plan)} parts")
            last = time.monotonic()
    return facts


def _one(
    root: Path,
    part: part_files.Part,
    say: Say,
    done: Say,
    team: part_files.Team,
    place: int = 0,
) -> part_files.Facts:
    """The facts of a part, which is found, made, or waited for if a live worker owns it.

    Tells `done` of a part that it has made.
    """
    facts, owner = part.done(root), place % team.count
    if facts is None and owner != team.number:
        if team.alive(owner):
            say(f"prepare: waiting for {part.name} of worker {owner}")
        while team.alive(owner) and (facts := part.done(root)) is None:
            time.sleep(1)
        if facts is None:
            say(
                f"prepare: worker {owner} gave no sign of life for {team.patience} s: {part.name} "
                "is made here"
            )
    if facts is None:
        start = time.monotonic()
        facts = part.finish(root)
        size = "".join(
            f" {facts[unit]:,} {unit}" for unit in ("tokens", "examples") if unit in facts
        )
        done(f"{part.name}:{size or ' made'} in {time.monotonic() - start:.1f} s")
    return facts


def _index(
    config: PrepareConfig,
    key: str,
    facts: dict[str, part_files.Facts],
    definitions: list["Definition"],
) -> dict[str, Any]:
    pretrain = {}
    for split, count in config.shard_counts.items():
        found = [facts[f"pretrain/{split}-{shard:05d}"] for shard in range(count)]
        pretrain[split] = {name: sum(part[name] for part in found) for name in COUNTS}
        pretrain[split]["shards"] = [
            file for part in found for file in part["files"] if not file.endswith(PARTS)
        ]
        if all("parts" in part for part in found):
            pretrain[split]["parts"] = [part["parts"] for part in found]
        if not pretrain[split]["tokens"]:
            raise InputError(f"source = {config.source!r}: there is no text for {split}")
    files = part_files.files(facts)
    names = ("sentencepiece", "seqio", "tensorflow", "tensorflow-datasets", "numpy")
    return {
        "format": FORMAT,
        "name": config.source,
        # Files with parts are left out, so that older runs still know the text as theirs.
        "fingerprint": part_files.key(
            FORMAT,
            {file: found["sha256"] for file, found in files.items() if not file.endswith(PARTS)},
        ),
        "key": key,
        "vocab_size": Vocabulary(
            Path(config.out) / "vocabulary.model", config.num_sentinels
        ).vocab_size,
        "num_sentinels": config.num_sentinels,
        "pretrain": pretrain,
        "text": facts["vocabulary"].get("survey", {}).get("counts"),
        "tasks": {
            d.name: {
                "metrics": d.metrics,
                "labels": d.labels,
                "examples": {
                    split: facts[f"tasks/{d.name}/{split}"]["examples"] for split in d.splits
                },
                "majority_class": facts.get(f"tasks/{d.name}/validation", {}).get("majority_class"),
                "replaced": d.replaced,
                **{
                    name: sum(facts[f"tasks/{d.name}/{split}"][name] for split in d.splits)
                    for name in ("pieces", "unknown", "changed")
                },
            }
            for d in definitions
        },
        "files": files,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in names},
    }


def _lost(index: dict[str, Any]) -> Iterator[str]:
    """The losses of text by tokenization, a line for each split and task that has any."""

    def told(about: str, found: dict[str, Any], of: str, pieces: int) -> Iterator[str]:
        if found["changed"]:
            share = f"{found['unknown'] / pieces:.1%} of the pieces are unknown to it"
            changed = f"{found['changed']:,} of {of}"
            yield f"{about}: the vocabulary does not give back {changed} as they were; {share}"

    for split, found in index["pretrain"].items():
        yield from told(
            "text", found, f"{found['documents']:,} documents of {split}", found["tokens"]
        )
    for name, found in index["tasks"].items():
        texts = 2 * sum(found["examples"].values())
        yield from told(f"tasks: {name}", found, f"{texts:,} inputs and targets", found["pieces"])
        if found["replaced"]:
            yield f"tasks: {name}: {text_files.REPLACED.format(found['replaced'])}"
