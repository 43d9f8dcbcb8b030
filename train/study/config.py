"""Configuration of runs and studies: frozen dataclasses, checked when they are created.

Presets are functions in `configs/`.
"""

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from arch_zoo.roles import ADJUSTABLE, Role
from train import ranges
from train.data.batch_shape import BatchShape, TextOptions
from train.ranges import Count, CountOrZero, NotNegative, Positive, Range, Rate, Seed
from train.records import InputError

if TYPE_CHECKING:
    from train.probes import Probe

Schedule = Literal["inverse_sqrt", "constant", "cosine", "linear"]
OptimizerName = Literal["adafactor", "adamw", "lion", "muon"]
StrategyName = Literal["pmap", "mesh"]
PretrainingObjective = Literal["span_corruption", "prefix_lm", "causal_lm"]
Scoring = Literal["decode", "rank", "both"]
Measure = Literal["representation", "memorisation", "separation"]
Family = Literal["encoder_decoder", "decoder_only"]

_LONGEST = 2**20  # tokens of a sequence
Length = Annotated[int, Range(1, _LONGEST)]

# Metadata of fields that do not change what is trained, but where or how often.
_LOGISTICS = {"identity": False}
# Metadata of fields that were added after runs had been recorded (see `identity`).
_LATER = {"later": True}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its learning-rate schedule; the defaults are T5's for pretraining.

    Attributes:
      name: adafactor (Shazeer & Stern, 2018), adamw (Loshchilov & Hutter, 2019), lion (Chen et al.,
        2023) or muon (Jordan et al., 2024): Muon for matrices and experts, with updates of AdamW's
        size (Liu et al., 2025), AdamW for the rest.
      learning_rate: factor on the schedule; inverse_sqrt at 1.0 is T5's 1 / sqrt(max(step,
        warmup_steps)).
      schedule: inverse_sqrt, constant, cosine or linear; the last two reach zero at the last step.
      warmup_steps: steps of linear warm-up; for inverse_sqrt, as in T5, the number of steps at its
        constant first value.
      decay_steps: steps at the end over which a constant or inverse_sqrt rate falls to zero.
      decay_shape: how it falls there: linear, or sqrt: as 1 - sqrt(the share that is done)
        (Haegele et al., 2024).
      decay_exponent: Adafactor's second moment decays at 1 - step ** -decay_exponent.
      clip_threshold: Adafactor's limit on the RMS of a parameter's update, 0 for none.
      scale_by_parameter: whether Adafactor's updates are relative to the RMS of the parameter.
      min_factored_size: Adafactor factors the second moment of a matrix if its last two axes are
        both at least this long.
      beta1: decay of the first moment, except in Adafactor, which has none.
      beta2: decay of AdamW's second moment, or of Lion's first one.
      clip_norm: limit on the global norm of the gradient, 0 for none.
      weight_decay: decoupled decay per unit of learning rate.
      decayed: the roles of the parameters that decay (`arch_zoo.roles`).
      rates: factors on the learning rate of roles, such as {"embedding": 10}; 1 for the others.
      balance_rate: how far each step moves the biases that even out the loads of experts, whatever
        the learning rate (DeepSeek-V3, arXiv 2412.19437).
    """

    name: OptimizerName = "adafactor"
    learning_rate: Positive = 1.0
    schedule: Schedule = "inverse_sqrt"
    warmup_steps: CountOrZero = 10_000
    decay_steps: CountOrZero = dataclasses.field(default=0, metadata=_LATER)
    decay_shape: Literal["linear", "sqrt"] = dataclasses.field(default="linear", metadata=_LATER)
    decay_exponent: Annotated[float, Range(0, 1, low_open=True)] = 0.8
    clip_threshold: NotNegative = 1.0
    scale_by_parameter: bool = True
    min_factored_size: Count = 128
    beta1: Rate = 0.9
    beta2: Rate = 0.98
    clip_norm: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    decayed: tuple[Role, ...] = dataclasses.field(
        default=tuple(role for role in ADJUSTABLE if role != "vector"), metadata=_LATER
    )
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict, metadata=_LATER)
    balance_rate: NotNegative = dataclasses.field(default=0.001, metadata=_LATER)

    def __post_init__(self):
        """Checks that every value is in range, and that only one decay reaches zero."""
        ranges.check(self)
        if "balance" in self.decayed:
            raise InputError("decayed: 'balance' does not decay; its steps are balance_rate")
        for role, factor in self.rates.items():
            if role not in ADJUSTABLE:
                raise InputError(f"rates.{role}: unknown role; known: {', '.join(ADJUSTABLE)}")
            if type(factor) not in (int, float) or not 0 <= factor < math.inf:
                raise InputError(f"rates.{role} = {factor!r}: must be a number, 0 or more")
        if self.decay_steps and self.schedule in ("cosine", "linear"):
            raise InputError(
                f"decay_steps = {self.decay_steps}: schedule {self.schedule!r} reaches zero at the "
                "last step by itself; choose constant or inverse_sqrt, or leave decay_steps out"
            )


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of a run; the defaults are those of T5's pretraining.

    Attributes:
      steps: optimizer steps.
      batch_size: sequences in a step, over all devices and micro-batches.
      input_length: tokens of an input, which an encoder reads.
      target_length: tokens of a target. In a decoder-only model it follows the input in one row;
        with causal_lm it is the whole row.
      optimizer: optimizer and schedule.
      dropout_rate: dropout everywhere in the model.
      z_loss: coefficient of log(Z)^2, in training only.
      label_smoothing: probability mass spread over the vocabulary, in training only.
      accumulate: number of micro-batches whose gradients make one step.
      max_rollbacks: how often a diverged loss may be rolled back to the last checkpoint; the
        batches since then are skipped.
      objective: the pretraining objective: span_corruption (T5), prefix_lm or causal_lm, all from
        the same shards.
      noise_density: share of the tokens that span corruption removes.
      mean_span_length: mean tokens of a removed span.
      by_document: with causal_lm in a decoder-only model, no position sees an earlier document.
      unique_tokens: pretraining sees only so many tokens of the text, in whole windows, again and
        again; 0 means all of it. A smaller number is part of a larger one, and the same for every
        seed.
      sources: weights of the parts of the corpus in pretraining, such as {"docstrings": 0.7,
        "source": 0.3}; empty means the text as it is.
      probe: pretraining is on the examples of a probe instead of text: its name as `task`, and
        its settings (`train.probes`), such as {"task": "mqar", "pairs": 8}; empty means text.
      patience: the stage ends after this many evaluations in a row in which neither the held-out
        loss nor, in finetuning, the score of any task was better than all before; 0 means never.
        The best and the last checkpoint are kept. Then `eval_every` affects the result as well.
      tasks: finetuning tasks, mixed in proportion to size; empty means every task of the corpus.
      cap: a task counts for at most this many examples when tasks are mixed; 0 means no limit.
      pack: finetuning puts several short examples into one row, if the architecture allows it.
      scoring: how answers of finetuned models are found: decode (greedily), rank (the most likely
        of a task's labels; tasks with free text are decoded), or both; then the headline score is
        that of decoding.
      decode_length: the largest number of tokens to decode; 0 means target_length.
      eval_batches: batches of the held-out evaluation.
      eval_examples: validation examples scored per task; 0 means all.
      eval_batch_size: sequences in an evaluation batch.
      eval_every: steps between evaluations; 0 means after the last step only.
      measures: what else pretraining is evaluated by: representation, memorisation, separation (see
        `train.run.evaluators`).
      log_every: steps between rows of metrics.jsonl.
      checkpoint_every: steps between checkpoints; the last step is always kept.
      keep_every: steps between checkpoints that are never deleted; 0 means none.
      keep_at: further steps whose checkpoint is saved and never deleted.
    """

    steps: Count = 524_288
    batch_size: Count = 128
    input_length: Length = 512
    target_length: Length = 114
    optimizer: OptimizerConfig = OptimizerConfig()
    dropout_rate: Rate = 0.0
    z_loss: NotNegative = 1e-4
    label_smoothing: Rate = 0.0
    accumulate: Count = 1
    max_rollbacks: CountOrZero = 3
    objective: PretrainingObjective = "span_corruption"
    noise_density: Annotated[float, Range(0, 1, low_open=True, high_open=True)] = 0.15
    mean_span_length: Annotated[float, Range(1, 1e6)] = 3.0
    by_document: bool = dataclasses.field(default=False, metadata=_LATER)
    unique_tokens: CountOrZero = dataclasses.field(default=0, metadata=_LATER)
    sources: Mapping[str, float] = dataclasses.field(default_factory=dict, metadata=_LATER)
    probe: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata=_LATER)
    patience: CountOrZero = dataclasses.field(default=0, metadata=_LATER)
    tasks: tuple[str, ...] = ()
    cap: CountOrZero = 0
    pack: bool = False
    scoring: Scoring = "decode"
    decode_length: Annotated[int, Range(0, _LONGEST)] = 0
    eval_batches: Count = 32
    eval_examples: CountOrZero = 0
    eval_batch_size: Count = 64
    eval_every: CountOrZero = dataclasses.field(
        default=0, metadata=_LOGISTICS | {"unless": "patience"}
    )
    measures: tuple[Measure, ...] = dataclasses.field(default=(), metadata=_LOGISTICS)
    log_every: Count = dataclasses.field(default=100, metadata=_LOGISTICS)
    checkpoint_every: Count = dataclasses.field(default=1000, metadata=_LOGISTICS)
    keep_every: CountOrZero = dataclasses.field(default=0, metadata=_LOGISTICS)
    keep_at: tuple[Count, ...] = dataclasses.field(default=(), metadata=_LOGISTICS)

    def __post_init__(self):
        """Checks that every value is in range and that they fit each other."""
        ranges.check(self)
        if self.batch_size % self.accumulate:
            raise InputError(
                f"accumulate = {self.accumulate} does not divide batch_size = {self.batch_size}"
            )
        if self.by_document and self.objective != "causal_lm":
            raise InputError(
                f"by_document = True needs objective = causal_lm, not {self.objective}"
            )
        for name, weight in self.sources.items():
            if type(weight) not in (int, float) or not 0 < weight < math.inf:
                raise InputError(f"sources.{name} = {weight!r}: must be a number above 0")
        if self.sources and self.unique_tokens:
            raise InputError(
                f"sources = {dict(self.sources)} and unique_tokens = {self.unique_tokens}: give "
                "only one of them"
            )
        if self.probe:
            self._check_probe()
        if self.patience and not self.eval_every:
            raise InputError(f"patience = {self.patience} needs eval_every above 0")
        if self.patience and self.optimizer.decay_steps:
            raise InputError(
                f"patience = {self.patience} cannot be used with optimizer.decay_steps = "
                f"{self.optimizer.decay_steps}: the run might stop before the decay starts"
            )
        if self.keep_every % self.checkpoint_every:
            every = f"checkpoint_every = {self.checkpoint_every}"
            raise InputError(
                f"keep_every = {self.keep_every} is no multiple of {every}: those steps are not "
                "saved"
            )

    def _check_probe(self) -> None:
        """Refuses a probe that does not exist, and settings of text."""
        self.made_probe()
        for name in ("sources", "unique_tokens", "measures", "by_document"):
            if value := getattr(self, name):
                raise InputError(f"{name} = {value!r}: pretraining on a probe has no text")

    def made_probe(self) -> "Probe":
        """The probe that pretraining is on."""
        from train import probes  # needs numpy, which no other setting does

        return probes.get(self.probe)

    def task_shape(self, family: str) -> BatchShape:
        """Of a training step's batch of task examples, for models of a family."""
        return BatchShape(self.batch_size, self.input_length, self.target_length, family)

    def text_shape(self, family: str) -> BatchShape:
        """The same of text: a language model needs no inputs. Of a probe if there is one."""
        if self.probe:
            probe = self.made_probe()
            inputs = probe.length - probe.most_answers
            return BatchShape(self.batch_size, inputs, probe.most_answers, family)
        shape = self.task_shape(family)
        alone = self.objective == "causal_lm" and family == "decoder_only"
        return dataclasses.replace(shape, input_length=0) if alone else shape

    def evaluated(self, shape: BatchShape) -> BatchShape:
        """The shape of an evaluation batch."""
        return dataclasses.replace(shape, batch_size=self.eval_batch_size)

    def evaluates(self, step: int) -> bool:
        """Whether there is an evaluation after so many steps."""
        return step == self.steps or bool(self.eval_every and step % self.eval_every == 0)

    def keeps(self, step: int) -> bool:
        """Whether the checkpoint of that step is never deleted."""
        return step in self.keep_at or bool(self.keep_every and step % self.keep_every == 0)

    def is_over(self, step: int, without_gain: int) -> bool:
        """Whether it ends after `step` steps and so many evaluations without a better value."""
        return step >= self.steps or 0 < self.patience <= without_gain

    @property
    def decay_starts(self) -> int:
        """The first step whose learning rate depends on the number of steps."""
        optimizer = self.optimizer
        if optimizer.schedule in ("cosine", "linear"):
            return 0
        return max(self.steps - optimizer.decay_steps, 0)

    @property
    def text(self) -> TextOptions:
        """How windows of pretraining text become examples."""
        names = (field.name for field in dataclasses.fields(TextOptions))
        return TextOptions(**{name: getattr(self, name) for name in names})


# T5 scores every 5,000 steps and reports the best checkpoint of each task (Raffel et al. 2020,
# section 3.1.2).
T5_FINETUNE = StageConfig(
    steps=100_000,
    eval_every=5000,
    dropout_rate=0.1,
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0),
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One cell of a study and how it is trained.

    Attributes:
      architecture: a name of `python -m arch_zoo list`.
      size: a named size, with scaling operators if wanted (`base-NL24-DM512`).
      family: encoder_decoder or decoder_only.
      protocol: the scaling protocol of the cell; empty means the plain size.
      seed: seed of the parameters, the order of the data and dropout.
      study: the study's name.
      model: options for `arch_zoo.config`; vocabulary, lengths and dropout are set from corpus and
        stage.
      pretrain: the pretraining stage.
      finetune: the finetuning stage; None ends the run after pretraining.
      parallel: pmap (data parallel) or mesh (data, model and expert axes).
      mesh: sizes of the data, model and expert axes, for parallel = mesh; -1 for the data axis
        means "the rest".
      trackers: where metrics go besides the run's own records: tensorboard, wandb.
    """

    architecture: str = "transformer"
    size: str = "base"
    protocol: str = ""
    seed: Seed = 0
    study: str = dataclasses.field(default="single", metadata=_LOGISTICS)
    family: Family = dataclasses.field(default="encoder_decoder", metadata=_LATER)
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretrain: StageConfig = StageConfig()
    finetune: StageConfig | None = T5_FINETUNE
    parallel: StrategyName = dataclasses.field(default="pmap", metadata=_LOGISTICS)
    mesh: tuple[int, int, int] = dataclasses.field(default=(-1, 1, 1), metadata=_LOGISTICS)
    trackers: tuple[str, ...] = dataclasses.field(default=(), metadata=_LOGISTICS)

    def __post_init__(self):
        """Checks that every value is in range."""
        ranges.check(self)
        if self.finetune is not None:
            for key in ("unique_tokens", "sources", "measures", "probe"):
                if value := getattr(self.finetune, key):
                    raise InputError(f"finetune.{key} = {value!r}: only pretraining has it")
        if self.pretrain.probe and (self.finetune is not None or self.family != "decoder_only"):
            raise InputError(
                f"pretrain.probe = {dict(self.pretrain.probe)!r} needs family = decoder_only and "
                "finetune = null"
            )
        if self.pretrain.by_document and self.family != "decoder_only":
            raise InputError("pretrain.by_document = True needs family = decoder_only")
        if (
            len(self.mesh) != 3
            or any(n < 1 for n in self.mesh[1:])
            or (self.mesh[0] < 1 and self.mesh[0] != -1)
        ):
            raise InputError(
                f"mesh = {list(self.mesh)} is not [data, model, expert], of which data may be -1"
            )

    @property
    def run_id(self) -> str:
        """The name of the run's directory."""
        family = "" if self.family == "encoder_decoder" else f"-{self.family}"
        protocol = f"-{self.protocol}" if self.protocol else ""
        return f"{self.architecture}-{self.size}{family}{protocol}-s{self.seed}"

    def differs_in_seed_alone(self, other: "RunConfig") -> bool:
        """Whether the two are equal except for the seed."""
        return dataclasses.replace(self, seed=other.seed) == other

    def shape(self, stage_name: str) -> BatchShape:
        """Of a training step's batch in one of the stages."""
        stage = getattr(self, stage_name)
        of = stage.text_shape if stage_name == "pretrain" else stage.task_shape
        return of(self.family)

    @property
    def max_lengths(self) -> dict[str, int]:
        """The longest row of each side in either stage, on which some weights' shapes depend.

        That of a probe may be in its test.
        """
        if self.pretrain.probe:
            return {"max_target_length": self.pretrain.made_probe().longest}
        shapes = [self.shape("pretrain"), *([self.shape("finetune")] if self.finetune else [])]
        return {key: max(shape.limits[key] for shape in shapes) for key in shapes[0].limits}


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """A set of cells and what they share.

    Attributes:
      name: the study's name, and that of the directory with its runs.
      cells: the runs, in the order in which they are started.
      corpus: the prepared corpus that all cells are trained on.
      prepare: the source from which `prepare` makes the corpus if it is missing; empty means that
        it must exist.
      platform: JAX platform of the workers; empty leaves the choice to JAX.
      tuning: a file of `eval tune` that the learning rates come from; the report says what they
        cost.
    """

    name: str
    cells: tuple[RunConfig, ...]
    corpus: str = "corpora/python"
    prepare: str = ""
    platform: str = ""
    tuning: str = ""

    def __post_init__(self):
        """Refuses values that no run can have."""
        ranges.check(self)
        ids = [cell.run_id for cell in self.cells]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise InputError(
                f"study {self.name!r}: cell {twice[0]!r} is declared {ids.count(twice[0])} times"
            )
        if not ids:
            raise InputError(f"study {self.name!r} has no cells")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: type, values: Mapping[str, Any], where: str = "") -> Any:
    """The inverse of `to_dict`.

    Raises:
      InputError: a key is unknown or missing, or a value has the wrong type. Names the key with its
        path.
    """
    where = where or kind.__name__
    if not isinstance(values, Mapping):
        raise InputError(f"{where} = {values!r}: expected keys and values")
    hints = typing.get_type_hints(kind)
    types = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(types)}")
    arguments = {
        key: _convert(types[key], value, f"{where}.{key}") for key, value in values.items()
    }
    try:
        return kind(**arguments)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None
    except InputError as error:
        raise InputError(f"{where}.{error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Lists as tuples and objects as dataclasses; each dataclass checks its own plain values."""
    options = (
        [option for option in get_args(kind) if option is not type(None)]
        if _is_union(kind)
        else [kind]
    )
    if value is None and _is_union(kind):
        return None
    option = options[0]
    if dataclasses.is_dataclass(option):
        return from_dict(typing.cast(type, option), typing.cast(Any, value), where)
    if typing.get_origin(option) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} = {value!r}: expected a list")
        item = get_args(option)[0]
        return tuple(_convert(item, element, f"{where}[{i}]") for i, element in enumerate(value))
    if option is int and isinstance(value, float) and value.is_integer():
        return int(value)  # such as 1e3
    if typing.get_origin(option) is Mapping and not isinstance(value, Mapping):
        raise InputError(f"{where} = {value!r}: expected keys and values")
    return value


def _is_union(kind: Any) -> bool:
    return type(None) in get_args(kind)


def identity(config: Any) -> Any:
    """The settings that determine the result of a run: the configuration without logistics.

    Fields that were added later are left out at their default, so that a run keeps its identity
    when a field is added.
    """
    if not dataclasses.is_dataclass(config):
        return list(config) if isinstance(config, tuple) else config  # as JSON reads it
    return {
        field.name: identity(getattr(config, field.name))
        for field in _of_identity(config)
        if not (field.metadata.get("later") and getattr(config, field.name) == _default(field))
    }


def recorded_identity(config: Any, record: Any) -> Any:
    """The identity that an earlier record of such a configuration stands for.

    Fields that the record has no value of, because they were added later, have their default.
    """
    if not dataclasses.is_dataclass(config) or not isinstance(record, Mapping):
        return record
    usual = {field.name: identity(_default(field)) for field in _of_identity(config)}
    return {
        field.name: recorded_identity(getattr(config, field.name), record.get(field.name))
        for field in _of_identity(config)
        if not (
            field.metadata.get("later")
            and record.get(field.name, usual[field.name]) == usual[field.name]
        )
    }


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _of_identity(config: Any) -> list[dataclasses.Field]:
    """The fields that determine a result.

    A field of logistics is one of them where the setting that its `unless` names is on.
    """
    return [
        field
        for field in dataclasses.fields(config)
        if field.metadata.get("identity", True)
        or getattr(config, field.metadata.get("unless", ""), False)
    ]


def digest(value: Any) -> str:
    """A stable hash of JSON values, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The differences between two nested JSON values, as lines `key: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        prefix = f"{where}." if where else ""
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{prefix}{key}")
        ]
    return [] if old == new else [f"{where}: {json.dumps(old)} -> {json.dumps(new)}"]
