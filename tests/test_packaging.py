"""Packaging: dependencies, versions, and which package may import which."""

import ast
import collections
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import arch_zoo

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("arch_zoo", "configs", "eval", "train")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has every test")
def test_the_tests_of_a_module_stay_together(request):
    """Otherwise every worker would build the same fixtures and compile the same models."""
    assert request.node.nodeid.endswith(f"@{__file__}")


def constraints() -> dict[str, Requirement]:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions; relative imports are resolved."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{path}: relative import")
    return found


def test_constraints_are_plain_pins_of_every_dependency():
    pins = constraints()
    for name, pin in pins.items():
        assert re.fullmatch(r"==[^,*]+", str(pin.specifier)), f"{name}: {pin}"
    assert {canonicalize_name(requirement.name) for requirement in DEPENDENCIES} <= pins.keys()


def test_the_environment_holds_what_the_constraints_pin():
    wrong = {}
    for name, pin in constraints().items():
        if pin.marker is None or pin.marker.evaluate():
            version = metadata.version(name)
            if version not in pin.specifier:
                wrong[name] = version
    assert not wrong


def test_every_third_party_import_is_declared():
    declared = {canonicalize_name(requirement.name) for requirement in DEPENDENCIES}
    optional = {
        canonicalize_name(Requirement(line).name)
        for extra in ("exchange", "trackers")
        for line in PROJECT["optional-dependencies"][extra]
    }
    owners = metadata.packages_distributions()
    undeclared = {}
    for path in sources(*ROOMS):
        for module in imports(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in ROOMS:
                continue
            names = {canonicalize_name(owner) for owner in owners.get(top, [top])}
            if not names & (declared | optional | {"jaxlib"}):
                undeclared[str(path.relative_to(ROOT))] = module
    assert not undeclared


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("arch_zoo", ("arch_zoo",)),
        ("train", ("arch_zoo", "configs", "train")),
        ("eval", ("eval", "train.command_line", "train.power", "train.ranges", "train.records")),
    ],
)
def test_rooms_import_only_what_the_design_allows(room, allowed):
    for path in sources(room):
        inside = {module for module in imports(path) if module.split(".")[0] in (*ROOMS, "tests")}
        may = (*allowed, "arch_zoo") if "diagnostics" in path.parts else allowed
        foreign = {
            module
            for module in inside
            if not any(f"{module}.".startswith(f"{name}.") for name in may)
        }
        assert not foreign, path


def test_no_circle_of_imports_in_train_and_eval():
    """Imports inside functions count too."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sources("eval", "train")
    }
    imported = {}
    for name, path in modules.items():
        whole = {
            module if module in modules else module.rpartition(".")[0] for module in imports(path)
        }
        imported[name] = whole & modules.keys() - {name}
    while free := {name for name, others in imported.items() if not others & imported.keys()}:
        imported = {name: others for name, others in imported.items() if name not in free}
    assert not imported


def test_analysis_imports_no_presentation_and_training_no_configs_when_it_is_imported():
    for path in sources("eval/data", "eval/stats", "eval/analyses", "eval/laws", "eval/simulation"):
        shown = {
            module
            for module in imports(path)
            if module.startswith(("eval.report", "eval.commands"))
        }
        assert not shown, path
    for path in sources("train"):
        assert not re.search(r"^(from|import) configs", path.read_text(), re.MULTILINE), path


def test_class_names_are_unique():
    places = collections.defaultdict(list)
    for path in sources(*ROOMS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_files_are_named_after_what_they_hold():
    paths = sources(*ROOMS, "tests", "benchmarks")
    assert not [path for path in paths if path.stem in ("utils", "helpers", "common")]


def test_no_file_names_a_package_index_or_a_place_on_one_machine():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    pattern = re.compile(r"--(extra-)?index-url|--find-links|(?<![\w.])/(root|home|work)/\w")
    for name in listed.splitlines():
        path = ROOT / name
        if (
            path.suffix in (".npz", ".png", ".pdf", ".gz", ".safetensors")
            or path == Path(__file__)
            or not path.exists()
        ):
            continue
        assert not pattern.search(path.read_text()), name


def test_the_version_is_the_same_wherever_it_stands():
    """It is set in arch_zoo/__init__.py; citation and changelog repeat it with its date."""
    assert ProjectMetadata(str(ROOT), PluginManager()).version == arch_zoo.__version__
    heading = r"^## \[(\d.*)\] - (\d{4}-\d\d-\d\d)$"
    releases = re.findall(heading, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version, date = releases[0]
    assert version == arch_zoo.__version__
    cited = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {version}" in cited and f"date-released: {date}" in cited


def test_the_hooks_before_a_commit_are_those_of_make_lint():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    wanted = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert re.findall(r"^ +entry: (.*)$", hooks, re.MULTILINE) == wanted
    assert "repo: http" not in hooks  # nothing is downloaded: hooks use the installed tools


def test_the_glossary_is_in_order_and_names_modules_that_exist():
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = [
        word.lower() for word in re.findall(r"^- \*\*(?:α \()?(\w[\w ,]*)", text, re.MULTILINE)
    ]
    assert words == sorted(set(words)) and len(words) == text.count("\n- **")
    named = re.findall(rf"`((?:{'|'.join(ROOMS)})[./][\w./]+)`", text)
    paths = [ROOT / name.replace(".", "/") for name in named]
    assert not [path for path in paths if not (path.is_dir() or path.with_suffix(".py").exists())]


@pytest.mark.slow
def test_the_wheel_holds_the_rooms_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {*ROOMS, f"{PROJECT['name'].replace('-', '_')}-{arch_zoo.__version__}.dist-info"}
    built = {name for name in names if name.endswith(".py")}
    assert built == {path.relative_to(ROOT).as_posix() for path in sources(*ROOMS)}
