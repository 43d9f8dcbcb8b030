"""Directives for the pages of the zoo. Each takes the name of an architecture and writes facts."""

import html
import inspect
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import arch_zoo
from eval.laws.forms import FORMS
from zoo_pages import diagram, facts, plot

PICTURES = "python docs/pictures.py {}"


class _Facts(SphinxDirective):
    """A directive whose only argument is the name of an architecture."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Notes the files that the facts come from, so that a change builds the page again."""
        name = self.arguments[0]
        if name not in arch_zoo.names():
            raise self.error(f"no architecture is called {name!r}")
        for path in (facts.source(name), Path(inspect.getfile(facts))):
            self.env.note_dependency(str(path))
        return self.facts(name)

    def facts(self, name: str) -> list[nodes.Node]:
        """What the directive is replaced by."""
        raise NotImplementedError

    def markdown(self, *lines: str) -> list[nodes.Node]:
        """Parses lines of Markdown."""
        container = nodes.Element()
        text = "\n".join(lines).split("\n")
        self.state.nested_parse(StringList(text, source=self.env.docname), 0, container)
        return container.children

    def figure(self, pictures: list[str], caption: str) -> list[nodes.Node]:
        """Pictures inside the page, with a caption that names the command that draws them."""
        command = PICTURES.format(self.arguments[0])
        body = "".join(pictures)
        text = (
            f'<figure class="zoo-picture"><div class="zoo-scroll">{body}</div>'
            f"<figcaption><p>{html.escape(caption)} Drawn by <code>{command}</code>.</p>"
            "</figcaption></figure>"
        )
        return [nodes.raw("", text, format="html")]


class Summary(_Facts):
    """Title, source, families and overridden seams, as a list."""

    def facts(self, name: str) -> list[nodes.Node]:
        """A short list."""
        cls = arch_zoo.get(name)
        families = {"encoder_decoder": "encoder-decoder", "decoder_only": "decoder-only"}
        seams = ", ".join(f"`{seam}`" for seam in facts.overridden(name)) or "nothing"
        path = facts.source(name).relative_to(facts.ROOT).as_posix()
        return self.markdown(
            f"- **Source**: {cls.paper}",
            f"- **Families**: {', '.join(families[family] for family in cls.families)}",
            f"- **Overrides**: {seams} ([what these seams are](../adding_an_architecture.md))",
            f"- **Code**: `{path}`",
            f"- **Shown by**: `python -m arch_zoo show {name} --size base`",
        )


class List(SphinxDirective):
    """A table of all architectures of the package, with links to their pages."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        lines = [
            "| architecture | source | families | outside the tables, at `base` |",
            "|---|---|---|--:|",
        ]
        for name in filter(facts.inside, arch_zoo.names()):
            cls = arch_zoo.get(name)
            (base,) = (row for row in facts.counted(name)["costs"] if row["size"] == "base")
            families = " ".join(family.replace("_", "-") for family in cls.families)
            lines.append(
                f"| [`{name}`]({name}.md) {cls.title} | {cls.paper} | {families} "
                f"| {short(base['non_embedding'])} |"
            )
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.env.docname), 0, container)
        return container.children


class LawForms(SphinxDirective):
    """A table of the forms of scaling laws, in the order in which the code lists them."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        lines = ["| `--form` | formula | what it claims | source |", "|---|---|---|---|"]
        lines += [
            f"| `{form.name}` | `{_cell(form.formula)}` | {_cell(form.meaning)} | {form.source} |"
            for form in FORMS.values()
        ]
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.env.docname), 0, container)
        return container.children


class Diagram(_Facts):
    """The parts of the model in every family that it has."""

    def facts(self, name: str) -> list[nodes.Node]:
        """One picture for each family."""
        own, vanilla = (facts.counted(which)["structure"] for which in (name, facts.VANILLA))
        pictures = [diagram.svg(name, family, own[family], vanilla[family]) for family in own]
        caption = (
            f"The parts of a model of size {facts.DRAWN} in the code, from the input at the top: "
            "an encoder-decoder"
        )
        caption += ", then a decoder-only model. " if len(pictures) > 1 else ". "
        caption += (
            "Every layer of a block has such a norm before it and is added to its input. "
            "Orange: differs from the vanilla model."
        )
        if name == facts.VANILLA:
            caption = caption.removesuffix("Orange: differs from the vanilla model.").rstrip()
        return self.figure(pictures, caption)


class Options(_Facts):
    """A table of options and one of named variants."""

    def facts(self, name: str) -> list[nodes.Node]:
        """The tables, or a sentence where there are no options."""
        rows, variants = facts.options(name), arch_zoo.get(name).variants
        if not rows:
            return self.markdown("It has no options of its own.")
        for row in rows:
            if not row["meaning"]:
                raise self.error(f"{name}: no docstring explains its option {row['name']!r}")
        lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{row['name']}` | `{_cell(row['type'])}` | `{_cell(row['default'])}` "
            f"| {_cell(row['meaning'])} |"
            for row in rows
        ]
        if variants:
            lines += ["", "Named variants, for `--variant` and `model.variant`:", ""]
            lines += ["| variant | stands for |", "|---|---|"]
            for variant, settings in variants.items():
                values = ", ".join(f"`{key}={value!r}`" for key, value in settings.items())
                lines.append(f"| `{variant}` | {_cell(values)} |")
        return self.markdown(*lines)


class Costs(_Facts):
    """A table of sizes, what decoding keeps, and the plot."""

    def facts(self, name: str) -> list[nodes.Node]:
        """Table, sentence and plot."""
        own, vanilla = (facts.counted(which) for which in (name, facts.VANILLA))
        lines = [
            "| size | layers | D | F | heads | parameters | outside the tables | active "
            "| forward FLOPs |",
            "|---|---|--:|--:|---|--:|--:|--:|--:|",
        ]
        lines += [
            f"| `{row['size']}` | {'+'.join(map(str, row['layers']))} | {row['D']} | {row['F']} "
            f"| {row['heads']} x {row['head_dim']} | {short(row['total'])} "
            f"| {short(row['non_embedding'])} | {short(row['active'])} | {short(row['flops'])} |"
            for row in own["costs"]
        ]
        lines += [
            "",
            f"Encoder-decoders with a vocabulary of {facts.vocabulary():,}; FLOPs are those of one "
            "row of {} input and {} target tokens. ".format(*facts.row())
            + "*Active* are the parameters that one token uses. "
            f"`python -m arch_zoo show {name} --size SIZE` counts any other size.",
        ]
        lines += ["", *_alone(own["decoder_only"], vanilla["decoder_only"], name), ""]
        picture = plot.svg(name, own["costs"], vanilla["costs"])
        caption = (
            "Parameters and FLOPs over the sizes of the table; both axes of values are logarithmic."
        )
        return [*self.markdown(*lines), *self.figure([picture], caption)]


def _alone(row: dict[str, Any] | None, vanilla: dict[str, Any], name: str) -> list[str]:
    """What a decoder-only model of `base` costs and keeps."""
    if row is None:
        return []
    short_length, long_length = facts.STATE_LENGTHS
    kept = {length: row["state"][str(length)] for length in facts.STATE_LENGTHS}
    lines = [
        f"A decoder-only model of `base` has {short(row['total'])} parameters, "
        f"{short(row['non_embedding'])} of them outside the tables. A token of a row of "
        f"{short_length:,} costs {short(row['flops_per_token'])} forward FLOPs. After "
        f"{short_length:,} tokens decoding keeps {short(kept[short_length])} numbers of a "
        f"sequence, after {long_length:,} {short(kept[long_length])}"
    ]
    if name != facts.VANILLA:
        usual = [short(vanilla["state"][str(length)]) for length in facts.STATE_LENGTHS]
        lines[0] += f" (the vanilla model: {usual[0]} and {usual[1]})"
    return [lines[0] + "."]


class Deviations(_Facts):
    """The paragraphs on deviations of the docstring of an architecture's file."""

    def facts(self, name: str) -> list[nodes.Node]:
        """The paragraphs as they are."""
        text = facts.deviations(name)
        if not text:
            raise self.error(f"the docstring of {name} has no paragraph that begins `Deviations.`")
        return self.markdown(text)


class Parity(_Facts):
    """What other projects' code the architecture is held against."""

    def facts(self, name: str) -> list[nodes.Node]:
        """A table of goldens and the scripts that made them."""
        rows = facts.parity(name)
        if not rows:
            return self.markdown("Nothing yet: no implementation by other people has confirmed it.")
        outputs, gradients = facts.tolerance()
        lines = ["| golden | what is compared | family | whose code |", "|---|---|---|---|"]
        lines += [
            f"| `{row['golden']}` | {row['what']} | {row['family'].replace('_', '-')} "
            f"| {row['oracle']} |"
            for row in rows
        ]
        lines += [
            "",
            f"Outputs may differ by {outputs:g}, and the gradient of every parameter by "
            f"{gradients:g} of its size (`PARITY` and `PARITY_GRADIENT` in "
            "`tests/tolerances.py`). The comparison runs with "
            f"`python -m pytest tests/parity -k {name}`. These scripts made the goldens; each "
            "names the environment it needs:",
            "",
        ]
        lines += [
            f"- `tests/parity/{recipe['script']}`: {recipe['says']}"
            for recipe in facts.recipes(name)
        ]
        return self.markdown(*lines)


def short(number: float) -> str:
    """A number with three digits and a letter: 223M."""
    number = float(f"{number:.3g}")
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{letter}"
    return f"{number:.0f}"


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def setup(app: Sphinx) -> None:
    """Registers all directives."""
    for name, directive in (
        ("law-forms", LawForms),
        ("zoo-list", List),
        ("zoo-summary", Summary),
        ("zoo-diagram", Diagram),
        ("zoo-options", Options),
        ("zoo-costs", Costs),
        ("zoo-deviations", Deviations),
        ("zoo-parity", Parity),
    ):
        app.add_directive(name, directive)
