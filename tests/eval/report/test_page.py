"""The page in a real browser: it draws, sorts, toggles and prints, and loads nothing else."""

import base64
import hashlib
import json
import re
from html import parser as html_parser

import pytest

from eval.analyses import everything
from eval.data.study import read_study
from eval.report import page
from tests.eval import run_directories
from tests.eval.report import browser

NEEDS_BROWSER = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="Chromium is not installed on this machine"
)
EVIL = '</script><img src=x onerror="window.evil=1">&'


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    """The page of a study in which one architecture has an awkward name."""
    names = ("evolved", "transformer", EVIL)
    path = run_directories.write_study(
        tmp_path_factory.mktemp("runs"),
        names,
        run_directories.LADDER[:4],
        2,
        protocols=("", "depth", "width"),
    )
    return page.render(everything.analyse(read_study(path)))


def test_the_page_is_one_file_that_names_no_other(html):
    ours = html.replace(page.plotly.offline.get_plotlyjs(), "")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|/)", ours)
    assert "default-src 'none'" in ours and "@import" not in ours and "url(" not in ours


def test_the_policy_names_what_may_run_by_hash_and_there_is_nothing_else(html):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert "unsafe" not in policy
    inline = re.findall(r"<(script|style)>(.*?)</\1>", html, re.S)
    assert [kind for kind, _ in inline] == ["style", "script", "script", "script"]
    for kind, text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in re.search(rf"{kind}-src ([^;]*);", policy)[1]
    attributes = set()
    parser = html_parser.HTMLParser()
    parser.handle_starttag = lambda tag, attrs: attributes.update(name for name, _ in attrs)
    parser.feed(html)
    assert "class" in attributes and not {
        name for name in attributes if name == "style" or name.startswith("on")
    }


def test_names_from_files_are_escaped(html):
    assert EVIL not in html and "<img src=x" not in html
    assert "&lt;/script&gt;&lt;img src=x" in html
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert data is not None and EVIL in json.loads(data[1])["looks"]


def test_the_summary_the_claims_and_the_slopes_come_first(html, small):
    order = ("In words", "Claims of arXiv", "Table 2.", "Where two lines meet", "Table 1.")
    places = [html.index(words) for words in order]
    assert places == sorted(places)
    warned = page.render(everything.analyse(read_study(small)))
    assert warned.index("Read this first") < warned.index("In words")
    assert (
        "unigram entropy of the held-out text, 6.250 nats" in warned and "majority class" in warned
    )


def test_the_page_begins_with_the_words_that_a_newcomer_needs(html):
    found = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", html))
    needed = {"cell", "run", "seed", "size", "upstream", "downstream", "FLOPs axis", "protocol"}
    assert needed <= set(found) and html.index("<dl>") < html.index("In words")
    assert "one forward pass of one sequence" in found["FLOPs axis"]
    assert "transformer is the reference" in found["architecture"]
    # A person reads each at a glance.
    assert all(len(said) < 150 for said in found.values())


@pytest.fixture(scope="module")
def chromium(html, tmp_path_factory):
    """A browser that shows the page from a file."""
    directory = tmp_path_factory.mktemp("browser")
    (directory / "report.html").write_text(html, encoding="utf-8")
    window = browser.Browser(directory / "profile")
    try:
        window.open((directory / "report.html").as_uri())
        window.wait("document.querySelectorAll('.plot .main-svg').length > 3")
        yield window
    finally:
        window.close()


def column(name: str, table: str) -> str:
    """JavaScript for the visible texts of one column of a table."""
    return (
        f"(() => {{ const t = document.querySelector('#t-{table} table'); "
        "const i = [...t.tHead.rows[0].cells].findIndex(c => "
        f"c.textContent.trim().startsWith('{name}')); "
        "return [...t.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[i].dataset.value); "
        "})()"
    )


def click_head(name: str, table: str) -> str:
    return (
        f"[...document.querySelectorAll('#t-{table} th')].find(c => "
        f"c.textContent.trim().startsWith('{name}')).firstElementChild.click()"
    )


@NEEDS_BROWSER
def test_tables_sort_both_ways(chromium):
    chromium.run(click_head("Loss", "table1"))
    up = [float(value) for value in chromium.run(column("Loss", "table1"))]
    assert up == sorted(up) and len(set(up)) > 10
    chromium.run(click_head("Loss", "table1"))
    assert [float(value) for value in chromium.run(column("Loss", "table1"))] == sorted(
        up, reverse=True
    )
    chromium.run(click_head("Architecture", "table1"))
    names = chromium.run(column("Architecture", "table1"))
    known = [name for name in names if name]
    assert known.index("evolved") < known.index("transformer")


@NEEDS_BROWSER
def test_toggles_hide_an_architecture_everywhere(chromium):
    traces = "document.getElementById('plot-main').data.filter(t => t.name === 'evolved').length"
    assert chromium.run(traces) == 1
    box = "document.querySelector('#toggles input[value=evolved]')"
    chromium.run(f"{box}.click()")
    assert chromium.run(traces) == 0
    assert "evolved" not in chromium.run(column("Architecture", "table1"))
    assert "evolved" not in chromium.run(
        "document.getElementById('plot-slopes').data.map(t => t.y[0])"
    )
    chromium.run(f"{box}.click()")
    assert chromium.run(traces) == 1


@NEEDS_BROWSER
def test_a_table_whose_rows_are_all_hidden_says_so(chromium):
    seen = "!document.querySelector('#t-contrasts .filtered').hidden"
    assert not chromium.run(seen)
    chromium.run("document.getElementById('none').click()")
    assert chromium.run(seen)
    assert not chromium.run("!document.querySelector('#t-claims .filtered').hidden")
    chromium.run("document.getElementById('all').click()")
    assert not chromium.run(seen)


@NEEDS_BROWSER
def test_laws_and_attainment_are_drawn(chromium):
    traces = "document.getElementById('plot-{}').data.length"
    assert chromium.run(traces.format("attainment")) == 3
    assert chromium.run(traces.format("law")) == 3  # band, curve and points
    chromium.run(
        "(() => { const s = document.querySelector('#controls-law [name=Show]'); s.value = "
        "'residuals'; s.dispatchEvent(new Event('change')); })()"
    )
    assert "residual" in chromium.run("document.getElementById('plot-law').layout.yaxis.title.text")
    note = chromium.run("document.getElementById('note-law').textContent")
    assert "starts agree" in note and "y = A x^-alpha" in note


@NEEDS_BROWSER
def test_only_the_bands_of_the_reference_and_of_what_is_pointed_at_are_seen(chromium):
    bands = (
        "Object.fromEntries(document.getElementById('plot-main').data.filter(t => t.meta)"
        ".map(t => [t.meta, t.fillcolor.slice(-2) !== '00']))"
    )
    assert chromium.run(bands) == {"evolved": False, "transformer": True, EVIL: False}
    for event, pointed in (("plotly_hover", True), ("plotly_unhover", False)):
        chromium.run(
            f"document.getElementById('plot-main').emit('{event}', {{points: [{{data: "
            "{name: 'evolved'}}]})"
        )
        chromium.wait(f"{bands}.evolved === {str(pointed).lower()}", seconds=5)
        assert chromium.run(bands)["transformer"]


@NEEDS_BROWSER
def test_learning_curves_of_every_run_are_drawn(chromium):
    points = "document.getElementById('plot-curves').data.map(t => t.y.filter(v => v).length)"
    # Three architectures, four sizes and two seeds; two points of training loss each.
    assert chromium.run(points) == [16] * 3
    title = "document.getElementById('plot-curves').layout.{}.title.text"
    assert chromium.run(title.format("xaxis")) == "tokens of pretraining"
    for value, axis in (("score:mean", "steps of fine-tuning"), ("train", "tokens of pretraining")):
        chromium.run(
            "(() => { const s = document.querySelector('#controls-curves [name=Show]'); "
            f"s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')); }})()"
        )
        assert chromium.run(title.format("xaxis")) == axis


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory) -> str:
    """The page of a study with one seed, in which two cells lie at one place."""
    path = run_directories.write_study(
        tmp_path_factory.mktemp("one"), ("glu", "lconv", "transformer"), run_directories.LADDER[:4]
    )
    source, copy = path / "glu-micro-s0", path / "lconv-micro-s0"
    (copy / "evals.jsonl").write_text((source / "evals.jsonl").read_text())
    config = json.loads((copy / "config.json").read_text())
    config["accounting"] = json.loads((source / "config.json").read_text())["accounting"]
    (copy / "config.json").write_text(json.dumps(config))
    return page.render(everything.analyse(read_study(path)))


def test_the_page_of_one_seed_hides_what_needs_seeds(one_seed, html):
    seeds = (
        "plot-attainment",
        "plot-best",
        ">Probability of being on it<",
        ">Interval (seeds only)<",
    )
    for name in seeds:
        assert name in html.split("<script>")[0] and name not in one_seed.split("<script>")[0]
    assert "Each cell was run with one seed" in one_seed
    stability = one_seed[one_seed.index('id="t-stability"') :].split("</figure>")[0]
    assert "Not known in any row" not in stability


MARK_IS_SEEN = """(() => {
  const mark = document.querySelector('#plot-main .annotation-text').getBoundingClientRect();
  const own = document.getElementById('plot-main').data
    .filter(t => t.mode === 'markers' && ['glu', 'lconv'].includes(t.name));
  const points = [...document.querySelectorAll('#plot-main .scatterlayer .point')]
    .map(p => p.getBoundingClientRect())
    .filter(p => Math.hypot(p.left - mark.left, p.top - mark.top) < 40);
  const apart = points.every(p => p.right <= mark.left + 3 || p.bottom <= mark.top + 3);
  const after = document.querySelector('#plot-main .scatterlayer')
    .compareDocumentPosition(document.querySelector('#plot-main .annotation-text'));
  return own.length === 2 && points.length >= 2 && apart
    && !!(after & Node.DOCUMENT_POSITION_FOLLOWING);
})()"""


@NEEDS_BROWSER
def test_the_page_of_one_seed_marks_cells_at_one_place_and_what_their_errors_are(
    one_seed, tmp_path
):
    (tmp_path / "report.html").write_text(one_seed, encoding="utf-8")
    window = browser.Browser(tmp_path / "profile")
    try:
        window.open((tmp_path / "report.html").as_uri())
        window.wait("document.querySelectorAll('.plot .main-svg').length > 2")
        data = "document.getElementById('plot-main').data"
        marks = window.run(
            "[...document.querySelectorAll('#plot-main .annotation-text')].map(t => t.textContent)"
        )
        assert marks == ["\u00d72"]
        # Nothing that is drawn later covers the mark, and it clears the markers at its place.
        assert window.run(MARK_IS_SEEN)
        hover = window.run(
            f"{data}.find(t => t.name === 'glu').text.find(t => t.includes('place'))"
        )
        assert hover.endswith("at the same place: lconv micro")
        note = window.run("document.getElementById('note-main').textContent")
        assert "common to all cells and is not for comparing them" in note
        assert not [e for e in window.events if e.get("method") == "Runtime.exceptionThrown"]
    finally:
        window.close()


@NEEDS_BROWSER
def test_axes_switch(chromium):
    def choose(name: str, value: str) -> None:
        chromium.run(
            f"(() => {{ const s = document.querySelector('#controls-main [name=\"{name}\"]'); "
            f"s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')); }})()"
        )

    title = "document.getElementById('plot-main').layout.{}.title.text"
    assert "log-perplexity" in chromium.run(title.format("yaxis"))
    choose("Quality", "downstream_mean")
    assert "Downstream" in chromium.run(title.format("yaxis"))
    choose("Against", "params_total")
    assert chromium.run(title.format("xaxis")) == "Parameters"
    assert chromium.run("document.getElementById('plot-main').layout.xaxis.type") == "log"
    choose("Protocol", "depth")
    assert chromium.run("document.getElementById('plot-main').data.filter(t => t.name).length") == 3
    for name, value in (
        ("Quality", "upstream_nll"),
        ("Against", "flops_forward"),
        ("Protocol", ""),
    ):
        choose(name, value)


@NEEDS_BROWSER
def test_narrow_screens_do_not_scroll_sideways(chromium):
    chromium.resize(390, 844)
    # The charts follow the window's size after a moment; after that nothing is wider than it.
    chromium.wait("document.documentElement.scrollWidth <= 390", seconds=20)
    chromium.resize(1280, 900)


# Whether a table, a chart or a word is cut off at the right, or a chart lies under its neighbour.
CUT = """(() => {
  const wide = [...document.querySelectorAll('.scroll')].filter(
    (box) => box.clientWidth && box.firstElementChild.scrollWidth > box.clientWidth);
  const flat = [...document.querySelectorAll('.plot')].filter(
    (plot) => plot.clientHeight < (plot.querySelector('.main-svg')?.clientHeight ?? 0));
  const titles = [...document.querySelectorAll('.xtitle, .ytitle')].filter((title) => {
    const box = title.getBoundingClientRect();
    return box.left < 0 || box.right > innerWidth;
  });
  return [...wide, ...flat, ...titles].map((box) => box.closest('figure, .plot').id);
})()"""


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 400])
def test_no_column_is_cut_and_no_chart_is_hidden(chromium, width):
    chromium.resize(width, 900)
    chromium.wait(f"document.querySelectorAll('.main-svg')[0].clientWidth <= {width}")
    chromium.wait(f"{CUT}.length === 0", seconds=10)
    assert chromium.run(f"document.documentElement.scrollWidth <= {width}")
    chromium.resize(1280, 900)


@NEEDS_BROWSER
def test_a_wide_table_turns_its_columns_and_keeps_those_that_name_the_row(chromium):
    heads = (
        "[...document.querySelectorAll('#t-table1 th')].filter(h => !h.hidden)"
        ".map(h => h.textContent)"
    )
    chromium.resize(400, 900)
    chromium.wait("!document.querySelector('#t-table1 .pager').hidden")
    chromium.wait(f"{CUT}.length === 0", seconds=10)
    before = chromium.run(heads)
    named = ["Size", "Architecture", "Protocol"]
    assert before[:3] == named and before[3].startswith("Loss")
    seen = list(before)
    for _ in range(20):
        chromium.run("document.querySelector('#t-table1 .pager button:last-child').click()")
        now = chromium.run(heads)
        assert now[:3] == named and chromium.run(f"{CUT}.length") == 0
        seen += now[3:]
    every = chromium.run("[...document.querySelectorAll('#t-table1 th')].map(h => h.textContent)")
    assert set(seen) == set(every)
    chromium.resize(1280, 900)


@NEEDS_BROWSER
def test_the_first_columns_stay_when_a_table_scrolls(chromium):
    place = (
        "(() => { const box = document.querySelector('#t-table1 .scroll'); box.style.width = "
        "'200px'; box.scrollLeft = 150; const x = document.querySelector('#t-table1 td')"
        ".getBoundingClientRect().left - box.getBoundingClientRect().left; box.style.width = ''; "
        "return x; })()"
    )
    assert chromium.run(place) == pytest.approx(1, abs=1.5)


@NEEDS_BROWSER
def test_the_console_is_empty_and_the_network_is_not_used(chromium):
    chromium.call("Page.printToPDF")
    said = [
        e
        for e in chromium.events
        if e.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    ]
    logged = [
        e["params"]["entry"]["text"] for e in chromium.events if e.get("method") == "Log.entryAdded"
    ]
    asked = [
        e["params"]["request"]["url"]
        for e in chromium.events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    assert said == [] and logged == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in asked) == 1
    assert chromium.run("window.evil") is None
