"""What the site is made of: links as they are there, notebooks as pages, names with docstrings."""

import re

import pytest

from scripts import make_site
from tests.docs.pages import ROOT


@pytest.mark.parametrize(
    ("page", "text", "on_the_site"),
    [
        ("index.md", "[docs/fit.md](docs/fit.md#the-clock)", "[fit](fit.md#the-clock)"),
        ("index.md", "![angles](docs/images/angles.png)", "![angles](images/angles.png)"),
        ("index.md", "[a](notebooks/own_rule.ipynb)", "[a](notebooks/own_rule.md)"),
        ("index.md", "([LICENSE](LICENSE))", "(LICENSE)"),
        ("index.md", "[changes](CHANGELOG.md)", "[changes](changelog.md)"),
        ("flags.md", "[the rules](../README.md#the-rules)", "[the rules](index.md#the-rules)"),
        ("contributing.md", "[r](README.md#more)", "[r](index.md#more)"),
        ("rules.md", "<!-- generated: rules -->\n| a |\n<!-- end -->", "\n| a |\n"),
        ("rules.md", "[paper](https://example.org/a.md)", "[paper](https://example.org/a.md)"),
    ],
)  # fmt: skip
def test_links_lead_there(page, text, on_the_site):
    assert make_site.linked(text, page) == on_the_site


def test_a_notebook_is_a_page_with_what_it_shows():
    text = make_site.notebook_page(ROOT / "notebooks" / "first_model.ipynb")
    assert text.startswith("# A first aligned model\n")
    assert "```python\n" in text and 'src="data:image/png;base64,' in text
    assert re.search(r"```text\n.*validation accuracy 0\.\d+", text, re.DOTALL)


@pytest.mark.parametrize("module", make_site.MODULES)
def test_every_public_name_has_a_docstring(module):
    found = make_site.public(module)
    assert found
    assert [n for name, value in found.items() for n in make_site.undocumented(name, value)] == []


class Bare:
    """A class with a method that says nothing."""

    def method(self):
        return 1

    def call(self):  # Keras's layers have it
        return 2


def test_what_has_none_is_seen():
    def function():
        return 1

    assert make_site.undocumented("Bare", Bare) == ["Bare.method"]
    assert make_site.undocumented("function", function) == ["function"]
