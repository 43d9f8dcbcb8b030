import ast
import sys

import pytest

from tests.train.data.python_library import copy_library
from train.data.text import python_text
from train.records import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(copy_library(tmp_path_factory.mktemp("library") / "lib"))


@pytest.fixture(scope="module")
def text(root):
    return python_text.read(root)


def test_splits_share_no_module_and_no_document(text):
    train, validation = ({m.path for m in split.modules} for split in (text.train, text.validation))
    assert train and validation and not train & validation
    assert not set(text.train.topics) & set(text.validation.topics)
    assert not set(text.train.documents()) & set(text.validation.documents())
    share = len("".join(text.validation.documents())) / len("".join(text.train.documents()))
    assert 0.05 < share < 0.3


def test_every_package_with_several_modules_is_in_training(text):
    packages = {m.package for m in text.validation.modules} - {python_text.TOP_LEVEL}
    assert packages and packages <= {m.package for m in text.train.modules}


def test_documents_are_distinct_and_in_a_fixed_order(text, root):
    documents = text.train.documents()
    assert len(documents) == len(set(documents))
    assert list(documents) == list(python_text.read(root).train.documents())


def test_every_document_is_of_one_part(text):
    documents = text.train.documents()
    assert set(documents.values()) == {"topics", "docstrings", "source"}
    for module in text.train.modules[:50]:
        assert not module.source or documents[module.source] == "source"
    assert all(documents[topic] == "topics" for topic in text.train.topics)


def test_source_is_without_docstrings_and_docstrings_are_whole(tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "a.py").write_text(
        '"""About\n\n    the module."""\nx = 1  # stays\n\n\nclass A:\n    """A class."""\n\n'
        "    def f(self, b: int, *c, d=(1, 2), **e) -> str:\n"
        "        '''Do f.'''\n        return 'text'\n"
    )
    (package / "broken.py").write_text("def")
    (package / "again.py").write_text((package / "a.py").read_text())
    (package / "test").mkdir()
    (package / "test" / "b.py").write_text('"""A test."""')
    (module,) = python_text.read(str(tmp_path)).train.modules
    assert [(e.signature, e.docstring) for e in module.entries] == [
        ("module pkg.a", "About\n\nthe module."),
        ("class A", "A class."),
        ("def f(b, *c, d=(1, 2), **e)", "Do f."),
    ]
    assert "stays" in module.source and "'text'" in module.source
    assert not any(word in module.source for word in ("About", "A class", "Do f"))


def test_nothing_is_imported_or_run(tmp_path):
    (tmp_path / "would_exit.py").write_text('"""Never run."""\nraise SystemExit(3)\n')
    python_text.read(str(tmp_path))
    assert "would_exit" not in sys.modules


def test_the_fingerprint_follows_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = python_text.fingerprint(str(tmp_path))
    assert first == python_text.fingerprint(str(tmp_path))
    (tmp_path / "a.py").write_text("x = 2\n")
    second = python_text.fingerprint(str(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, python_text.fingerprint(str(tmp_path))}) == 3


def test_a_library_without_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="no Python source"):
        python_text.read(str(tmp_path))


def test_signatures_parse(text):
    for entry in text.train.entries:
        if entry.arguments is not None:
            ast.parse(f"{entry.signature}: pass")
            assert not entry.signature.split("(")[1].startswith("self")
