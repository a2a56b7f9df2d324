"""docs/rules.md: every option of every rule, with its default."""

import dataclasses

from neural_alignment import alignments
from tests.docs.pages import ROOT, quoted, tables

PAGE = ROOT / "docs" / "rules.md"
OF_ALL = {"all": alignments.Alignment, "all with a loss": alignments.LayerwiseAlignment}


def options(rule):
    return {field.name: field.default for field in dataclasses.fields(rule)}


def spelled(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else value


def test_coefficients():
    (head,) = (head for head in tables(PAGE) if head.startswith("| option | symmetric"))
    names = [cell.strip() for cell in head.strip("|").split("|")][1:]
    on_page = {name: {} for name in names}
    for option, *cells in tables(PAGE)[head]:
        for name, cell in zip(names, cells, strict=True):
            if cell:
                on_page[name][quoted(option)[0]] = cell
    with_loss = [
        name
        for name in alignments.names()
        if issubclass(alignments.rule(name), alignments.LayerwiseAlignment)
    ]
    assert on_page == {
        name: {
            option: spelled(options(alignments.rule(name))[option])
            for option in alignments.rule(name).coefficient_names()
        }
        for name in with_loss
    }


def test_options_of_single_rules():
    rows = tables(PAGE)["| option | rules | default | |"]
    shared = set(options(alignments.ProjectionAlignment))
    expected = {}
    for name in alignments.names():
        rule = alignments.rule(name)
        for option, default in options(rule).items():
            if option not in shared and not option.endswith("_coef"):
                expected[option] = (name, spelled(default))
    on_page = {quoted(option)[0]: (rules, default) for option, rules, default, _ in rows}
    for option, (rules, default) in list(on_page.items()):
        if rules in OF_ALL:
            del on_page[option]
            assert default == spelled(options(OF_ALL[rules])[option])
    assert on_page == expected


def test_other_defaults_of_inherited_options():
    on_page = {
        (quoted(option)[0], name): default
        for option, name, default in tables(PAGE)["| option | rule | default |"]
    }
    expected = {}
    for name in alignments.names():
        rule = alignments.rule(name)
        base = next(b for b in rule.__mro__[1:] if dataclasses.is_dataclass(b))
        for option, default in options(base).items():
            if options(rule)[option] != default:
                expected[option, name] = spelled(options(rule)[option])
    assert on_page == expected


def test_projection_options_are_those_of_the_class():
    rows = tables(PAGE)["| option | default | | Table 5 |"]
    on_page = {quoted(option)[0]: default for option, default, *_ in rows}
    inherited = options(alignments.LayerwiseAlignment)
    assert on_page == {
        option: spelled(default)
        for option, default in options(alignments.ProjectionAlignment).items()
        if option not in inherited
    }
