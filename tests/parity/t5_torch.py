"""Hugging Face's T5 as the frame for PyTorch oracles, with the zoo's parameter names.

If an architecture replaces a layer, its script puts another project's layer in place of T5's.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch
import transformers
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

import arch_zoo
from arch_zoo import exchange
from arch_zoo.exchange.table import Row
from tests.parity import batches
from tests.parity.golden import Golden

VERSIONS = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
# Odd on purpose: no two dimensions are equal, so that a wrong transposition cannot pass.
DIMENSIONS = {
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "embed_dim": 12,
    "mlp_dim": 20,
    "num_heads": 3,
    "head_dim": 6,
    "vocab_size": 29,
}
DECODER_ONLY = {
    "family": "decoder_only",
    **{name: value for name, value in DIMENSIONS.items() if "encoder" not in name},
}

# Parts of the names of tables that are looked up, so that their fan-in is 1.
_LOOKED_UP = ("shared", "relative_attention_bias", "signal", "embed_tokens", "wte", "_emb.")
# Parts of the names of what a decoder with a silent memory does not use.
SILENT = ("encoder.", ".layer.1.")


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter of the zoo: the oracle's parameters that it is made of, and the change of layout.

    The layout moves entries without changing them, so it can be applied to gradients too.
    """

    tensors: nn.Parameter | tuple[nn.Parameter, ...]
    layout: Callable[..., np.ndarray] = np.asarray

    def parts(self) -> tuple[nn.Parameter, ...]:
        """The oracle's parameters."""
        return (self.tensors,) if isinstance(self.tensors, nn.Parameter) else self.tensors

    def value(self) -> np.ndarray:
        """The parameter in the zoo's layout."""
        return self.layout(*(tensor.detach().numpy() for tensor in self.parts()))

    def gradient(self) -> np.ndarray:
        """Its gradient in the zoo's layout."""
        return self.layout(*(tensor.grad.numpy() for tensor in self.parts()))


@dataclasses.dataclass(frozen=True)
class Mapped(Weight):
    """A parameter of the zoo by a row of the zoo's own map.

    Attributes:
      row: of the map.
      which: the parameter's place among those of the row.
      named: the row's tensors.
    """

    row: Row = None  # pyright: ignore[reportAssignmentType]
    which: int = 0
    named: tuple[Weight, ...] = ()

    def value(self) -> np.ndarray:
        """The parameter in the zoo's layout."""
        return self.row.from_theirs(*(weight.value() for weight in self.named))[self.which]

    def gradient(self) -> np.ndarray:
        """Its gradient in the zoo's layout."""
        return self.row.gradient(*(weight.gradient() for weight in self.named))[self.which]


def mapped(
    model: nn.Module, config: dict, others: Mapping[str, Weight] | None = None
) -> dict[str, Weight]:
    """The parameters of a model by the zoo's paths, as the zoo imports and exports it.

    Args:
      model: of transformers.
      config: of the zoo's model.
      others: tensors that files name otherwise than the model does.
    """
    cfg = arch_zoo.config(**config)
    found = exchange.of_architecture(cfg)
    tensors = {name: Weight(tensor) for name, tensor in model.named_parameters()} | (others or {})
    weights: dict[str, Weight] = {}
    for row in found.rows(cfg, found.written(cfg)):
        named = tuple(tensors[name] for name in row.theirs)
        parts = tuple(part for weight in named for part in weight.parts())
        weights |= {
            path: Mapped(parts, row=row, which=which, named=named)
            for which, path in enumerate(row.ours)
        }
    return weights


class PerSegment(nn.Module):
    """Replaces T5's self-attention by code that handles neither padding nor packing.

    The code runs on each segment of each row separately, so its results define those of a packed
    row.
    """

    segment_ids = np.zeros((0, 0), np.int32)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer does with one sequence [L, D]."""
        raise NotImplementedError

    def forward(self, x, **unused):
        """The signature of T5Attention: output, position bias, attention weights."""
        y = torch.zeros_like(x)
        for row, segment_ids in enumerate(self.segment_ids):
            for segment in np.unique(segment_ids[segment_ids > 0]):
                where = torch.tensor(segment_ids == segment)
                y[row, where] = self.mix(x[row, where])
        return y, None, None


def set_segments(model: nn.Module, batch: dict[str, np.ndarray]) -> None:
    """Sets the positions that belong together in every such layer."""
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        for block in stack.block:
            block.layer[0].SelfAttention.segment_ids = batches.segments(batch, side)


def build(dimensions: dict, feed_forward: str = "relu") -> T5ForConditionalGeneration:
    """T5 with tied logits, eager attention and no dropout; its decoder starts from 0."""
    config = T5Config(
        vocab_size=dimensions["vocab_size"],
        d_model=dimensions["embed_dim"],
        d_kv=dimensions["head_dim"],
        d_ff=dimensions["mlp_dim"],
        num_heads=dimensions["num_heads"],
        num_layers=dimensions["num_encoder_layers"],
        num_decoder_layers=dimensions["num_decoder_layers"],
        feed_forward_proj=feed_forward,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        attn_implementation="eager",
        use_cache=False,
    )
    return T5ForConditionalGeneration(config).eval()


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draws every parameter so that each one matters.

    Matrices are scaled by their fan-in; norms and biases are not close to 1 and 0.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in _LOOKED_UP):
                spread, centre = 1.0, 0.0
            elif parameter.ndim == 1:
                norm = "norm" in name or "ln_" in name
                spread, centre = 0.3, float(norm and name.endswith("weight"))
            else:
                spread, centre = parameter.shape[-1] ** -0.5, 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))


def linear(layer: nn.Linear, path: str) -> dict[str, Weight]:
    """A linear layer as the zoo's `Dense`: kernel [in, out], and the bias if there is one."""
    weights = {f"{path}.kernel": Weight(layer.weight, np.transpose)}
    return weights if layer.bias is None else weights | {f"{path}.bias": Weight(layer.bias)}


def attention(layer: nn.Module, path: str) -> dict[str, Weight]:
    """The four projections."""
    names = {"query": layer.q, "key": layer.k, "value": layer.v, "out": layer.o}
    return {f"{path}.{name}": Weight(part.weight, np.transpose) for name, part in names.items()}


def feed_forward(layer: nn.Module, path: str) -> dict[str, Weight]:
    """All matrices: wi or wi_0 and wi_1, and wo."""
    return {
        f"{path}.{name}": Weight(part.weight, np.transpose)
        for name, part in layer.named_children()
        if "w" in name
    }


def residuals(
    block: nn.Module, path: str, self_mixer=attention, feed_forward=feed_forward
) -> dict[str, Weight]:
    """A block's layers with their norms."""
    *mixers, last = block.layer
    parts = [
        (
            "self_attention",
            mixers[0],
            self_mixer(mixers[0].SelfAttention, f"{path}.self_attention.layer"),
        )
    ]
    if len(mixers) == 2:
        parts.append(
            (
                "cross_attention",
                mixers[1],
                attention(mixers[1].EncDecAttention, f"{path}.cross_attention.layer"),
            )
        )
    parts.append(
        ("feed_forward", last, feed_forward(last.DenseReluDense, f"{path}.feed_forward.layer"))
    )
    weights = {}
    for name, layer, own in parts:
        weights |= own | {f"{path}.{name}.norm.scale": Weight(layer.layer_norm.weight)}
    return weights


def silence(model: T5ForConditionalGeneration) -> None:
    """Makes the decoder a language model: its cross-attention no longer adds anything."""
    for block in model.decoder.block:
        block.layer[1].EncDecAttention.o.weight.data.zero_()


def language_model(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Of the parameters of T5 those that its decoder has as a language model."""
    return {
        path: weight
        for path, weight in weights.items()
        if not path.startswith("encoder") and "cross_attention" not in path
    }


def parameters(
    model: T5ForConditionalGeneration, self_mixer=attention, feed_forward=feed_forward
) -> dict[str, Weight]:
    """Every parameter of T5 by the zoo's path.

    Blocks that are one object are one block in the zoo.
    """
    weights = {"embedding.table": Weight(model.shared.weight)}
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        blocks = list(dict.fromkeys(getattr(block, "shared", block) for block in stack.block))
        for index, block in enumerate(blocks):
            weights |= residuals(block, f"{side}.blocks.{index}", self_mixer, feed_forward)
        weights[f"{side}.norm.scale"] = Weight(stack.final_layer_norm.weight)
        bias = getattr(blocks[0].layer[0].SelfAttention, "relative_attention_bias", None)
        if bias is not None:
            weights[f"{side}.positions.table"] = Weight(bias.weight)
    return weights


def additive(allowed: np.ndarray) -> torch.Tensor:
    """An additive mask [B, 1, T, S] from a boolean one [B, T, S]."""
    return torch.where(torch.tensor(allowed), 0.0, -1e10)[:, None]


def masks(batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The additive masks of the encoder, the decoder and the cross-attention."""
    source, target = batches.segments(batch, "encoder"), batches.segments(batch, "decoder")
    crossed = target[:, :, None] == source[:, None, :]
    same = source[:, :, None] == source[:, None, :]
    return additive(same), causal_mask(batch), additive(crossed)


def causal_mask(batch: dict[str, np.ndarray]) -> torch.Tensor:
    """The additive mask of the decoder; a prefix sees all of itself."""
    target = batches.segments(batch, "decoder")
    same = target[:, :, None] == target[:, None, :]
    prefix = batch.get("decoder_causal_attention", np.zeros_like(target)) > 0
    return additive(np.tril(same) | (same & prefix[:, :, None] & prefix[:, None, :]))


def decode(model: T5ForConditionalGeneration, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """The decoder's output [B, T, D]; logits are `head(model, ...)` of it."""
    encoder_mask, decoder_mask, cross_mask = masks(batch)
    memory = model.encoder(
        input_ids=torch.tensor(batch["encoder_input_tokens"]), attention_mask=encoder_mask
    )
    return model.decoder(
        input_ids=torch.tensor(batch["decoder_input_tokens"]),
        attention_mask=decoder_mask,
        encoder_hidden_states=memory.last_hidden_state,
        encoder_attention_mask=cross_mask,
    ).last_hidden_state


def logits(model: T5ForConditionalGeneration, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """Tied logits [B, T, V]."""
    return decode(model, batch) * model.config.d_model**-0.5 @ model.shared.weight.T


def language_model_logits(
    model: T5ForConditionalGeneration, batch: dict[str, np.ndarray]
) -> torch.Tensor:
    """The same of the decoder alone, which `silence` has made deaf: its memory is one zero."""
    ids = torch.tensor(batch["decoder_input_tokens"])
    x = model.decoder(
        input_ids=ids,
        attention_mask=causal_mask(batch),
        encoder_hidden_states=torch.zeros(len(ids), 1, model.config.d_model),
        encoder_attention_mask=torch.zeros(len(ids), 1, ids.shape[1], 1),
    ).last_hidden_state
    return x * model.config.d_model**-0.5 @ model.shared.weight.T


def loss(log_probabilities: torch.Tensor, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """The mean negative log-likelihood of the weighted targets."""
    targets = torch.tensor(batch["decoder_target_tokens"], dtype=torch.long)
    weights = torch.tensor(batch["decoder_loss_weights"], dtype=torch.float32)
    nll = -log_probabilities.gather(-1, targets[..., None])[..., 0]
    return (nll * weights).sum() / weights.sum()


def golden(
    oracle: str,
    model: dict,
    batch: dict[str, np.ndarray],
    weights: dict[str, Weight],
    scores: torch.Tensor,
    auxiliary: dict[str, torch.Tensor] | None = None,
) -> Golden:
    """Backpropagates the loss of `scores` [B, T, V] (logits or log-probabilities) plus aux."""
    for tensor in (tensor for weight in weights.values() for tensor in weight.parts()):
        tensor.grad = None
    losses = {"loss": loss(torch.log_softmax(scores, dim=-1), batch), **(auxiliary or {})}
    sum(losses.values()).backward()
    return Golden(
        oracle=oracle,
        model=model,
        inputs=batch,
        weights={path: weight.value() for path, weight in weights.items()},
        outputs={
            "logits": scores.detach().numpy(),
            **{name: value.detach().numpy() for name, value in losses.items()},
        },
        gradients={path: weight.gradient() for path, weight in weights.items()},
    )


def check_complete(
    model: nn.Module, weights: dict[str, Weight], unused: tuple[str, ...] = ()
) -> None:
    """Raises AssertionError if a parameter of the oracle has no name in the zoo.

    Parameters with one of `unused` in their names need none.
    """
    named = {id(tensor) for weight in weights.values() for tensor in weight.parts()}
    missing = [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in named and not any(part in name for part in unused)
    ]
    assert not missing, missing
