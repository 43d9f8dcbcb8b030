"""The documentation site: every architecture has a page, and it builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import arch_zoo
from eval.analyses.question import Question
from eval.stats.regression import MIN_SIZES, ROBUST_FROM
from train.power import POWER

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ZOO = {path.stem for path in (DOCS / "zoo").glob("*.md")} - {"index"}
PICTURE = re.compile(r"<img [^>]*_images/|<svg role=")
COMMAND = re.compile(r"\b(make [a-z]+|python (-m [a-z_.]+|docs/\w+\.py))")


def own_names() -> set[str]:
    """The architectures of the package; a test or a user may have registered others."""
    folder = "arch_zoo.architectures."
    return {name for name in arch_zoo.names() if arch_zoo.get(name).__module__.startswith(folder)}


def test_every_architecture_has_a_page_and_every_page_an_architecture():
    missing, left_over = own_names() - ZOO, ZOO - own_names()
    assert not missing, f"write docs/zoo/NAME.md (docs/adding_an_architecture.md) for {missing}"
    assert not left_over, f"no architecture has the pages {left_over} of docs/zoo"


@pytest.mark.parametrize("name", sorted(ZOO))
def test_a_page_of_the_zoo_has_every_part(name):
    text = (DOCS / "zoo" / f"{name}.md").read_text(encoding="utf-8")
    used = set(re.findall(rf"^```{{zoo-(\w+)}} {name}$", text, re.MULTILINE))
    assert {"summary", "diagram", "options", "costs", "parity"} <= used
    sections = set(re.findall(r"^## (.*)$", text, re.MULTILINE))
    assert {"Idea", "Formula", "What differs from the vanilla model"} <= sections


def test_the_statistics_are_explained_with_the_numbers_of_the_code():
    """The prose writes them in words: four sizes, from eight sizes on, 80 %."""
    assert (MIN_SIZES, ROBUST_FROM, POWER) == (4, 8, 0.8)
    assert (Question().level, Question().errors, Question().variance) == (0.95, "size", "separate")


@pytest.mark.slow
def test_the_command_that_pages_name_draws_their_pictures(tmp_path):
    command = [sys.executable, str(DOCS / "pictures.py"), "albert", "--out", str(tmp_path)]
    subprocess.run(command, check=True, env=_environment())
    drawn = {path.name: ElementTree.parse(path) for path in tmp_path.iterdir()}
    families = arch_zoo.get("albert").families
    assert drawn.keys() == {f"albert_{what}.svg" for what in (*families, "costs")}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; any warning fails."""
    out = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "--quiet", "--doctree-dir", str(out / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(out / "html")]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


def _environment() -> dict[str, str]:
    """That of a person's shell: pytest's own variables would reach the notebook's kernel."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@pytest.mark.slow
def test_every_picture_is_made_by_a_command_that_its_page_names(site):
    pictures = 0
    for page in sorted(site.rglob("*.html")):
        article = _article(page.read_text(encoding="utf-8"))
        if PICTURE.search(article):
            pictures += 1
            assert COMMAND.search(re.sub(r"<[^>]+>", "", article)), page
    assert pictures > len(ZOO)


@pytest.mark.slow
def test_the_site_needs_no_network(site):
    """It loads nothing from elsewhere; links to elsewhere are fine."""
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"(https?:)?//|@import|url\(\"?http"
    )
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert not [page for page in pages if loads.search(page.read_text(encoding="utf-8"))]
    styles = re.compile(r"<link[^>]*rel=\"stylesheet\"[^>]*href=\"(https?:)?//")
    assert not [page for page in pages if styles.search(page.read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_formulas_are_shown_without_a_script(site):
    page = (site / "zoo" / "transformer.html").read_text(encoding="utf-8")
    assert "<math" in page and "MathJax" not in page


def _article(html: str) -> str:
    """What stands between a page's navigation and its footer."""
    return html.partition("<article")[2].partition("</article>")[0]
