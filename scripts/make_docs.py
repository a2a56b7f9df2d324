"""Writes the tables of README.md and docs/ that repeat what the code says.

    python scripts/make_docs.py

`make docs` runs it. A page has a table between `<!-- generated: NAME -->` and `<!-- end -->`. What
is written there comes from the registries, classes, flags and files that the facts stand in;
`tests/docs/test_tables.py` fails where a page is behind.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_PLACE = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table.

    Args:
        head: a cell for each column.
        rows: cells.

    Returns:
        Lines, each with its end.
    """
    head = list(head)
    lines = [head, None, *map(list, rows)]
    return "".join(
        "|" + "---|" * len(head) + "\n"
        if line is None
        else "|" + "|".join(f" {_cell(cell)} " if cell else " " for cell in line) + "|\n"
        for line in lines
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def code(*names: str) -> str:
    """Names in backquotes."""
    return ", ".join(f"`{name}`" for name in names)


def spelled(value: Any) -> str:
    """A default as the pages write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(map(spelled, value)) or "none"
    return "none" if value is None else str(value)


def rules() -> str:
    """The rules: B, tied, R, sources."""
    made = map(_alignments().rule, _alignments().names())
    return table(
        ("rule", "backward kernel", "tied", "R", "source"),
        (
            (
                code(rule.name),
                rule.backward_in_words(),
                rule.tied_in_words(),
                rule.loss_in_words(),
                ", ".join(rule.sources),
            )
            for rule in made
        ),
    )


def rules_coefficients() -> str:
    """Each rule's coefficients and their defaults."""
    rows = []
    for name in _alignments().names():
        rule = _alignments().rule(name)
        defaults = {field.name: field.default for field in dataclasses.fields(rule)}
        given = [f"`{c}` {spelled(defaults[c])}" for c in rule.coefficient_names()]
        if given:
            rows.append((name, ", ".join(given)))
    return table(("rule", "coefficients and their defaults"), rows)


def rules_options() -> str:
    """The options of single rules, and those that all have."""
    alignments = _alignments()
    having: dict[str, list[str]] = {}
    fields = {}
    for name in alignments.names():
        for field in dataclasses.fields(alignments.rule(name)):
            having.setdefault(field.name, []).append(name)
            fields[field.name] = field
    for words, base in (
        ("all with a loss", alignments.LayerwiseAlignment),
        ("all", alignments.Alignment),
    ):
        having |= {field.name: [words] for field in dataclasses.fields(base)}
        fields |= {field.name: field for field in dataclasses.fields(base)}
    of_projections = {field.name for field in _of_projections()}
    return table(
        ("option", "rules", "default", ""),
        (
            (code(name), ", ".join(having[name]), spelled(field.default), _help(field))
            for name, field in fields.items()
            if name not in of_projections and not name.endswith("_coef")
        ),
    )


def rules_other_defaults() -> str:
    """Options whose default in a rule is another than in the class it inherits them from."""
    rows = []
    for name in _alignments().names():
        rule = _alignments().rule(name)
        base = next(base for base in rule.__mro__[1:] if dataclasses.is_dataclass(base))
        inherited = {field.name: field.default for field in dataclasses.fields(base)}
        rows += [
            (code(field.name), name, spelled(field.default))
            for field in dataclasses.fields(rule)
            if field.default != inherited.get(field.name, field.default)
        ]
    return table(("option", "rule", "default"), rows)


def rules_projection_options() -> str:
    """The options of rules that compare projections, in the order in which they act."""
    return table(
        ("option", "default", "", "Table 5"),
        (
            (code(field.name), spelled(field.default), _help(field), field.metadata["paper"])
            for field in _of_projections()
        ),
    )


def _of_projections() -> list[dataclasses.Field]:
    """The options of rules that compare projections, beside those that every rule has."""
    inherited = _alignments().LayerwiseAlignment.option_names()
    fields = dataclasses.fields(_alignments().ProjectionAlignment)
    return [field for field in fields if field.name not in inherited]


def _help(field: dataclasses.Field) -> str:
    choices = field.metadata["choices"] or ()
    # Keras's activations are many, and Keras's own.
    return field.metadata["help"] + (f": {', '.join(choices)}" if 0 < len(choices) < 6 else "")


def rules_cost() -> str:
    """The operations that each rule's R adds to each layer."""
    rows = []
    for name in _alignments().names():
        rule = _alignments().rule(name)
        if "input_distribution" in rule.option_names():
            inputs = (None, "normal")
            rows.append((name, *(str(rule(input_distribution=x).extra_operations) for x in inputs)))
        else:
            rows.append((name, str(rule().extra_operations), ""))
    return table(("rule", "added to each layer", "on noise"), _alike(rows))


def flags() -> str:
    """Every flag of a training job, by section."""
    from neural_alignment.config import flags as of_jobs

    blocks = []
    for title, settings in of_jobs.sections():
        rows = (_flag_row(names, setting) for names, setting in _merged(settings))
        blocks.append(f"### {title}\n\n" + table(("flag", "default", ""), rows))
    return "\n" + "\n".join(blocks) + "\n"


def _merged(settings: Iterable[Any]) -> Iterator[tuple[list[str], Any]]:
    """Flags in order; those of the coefficients' schedules, alike for each, once and at the end."""
    from neural_alignment.config import groups

    found: dict[str, tuple[list[str], Any]] = {}
    for setting in settings:
        match = re.fullmatch(rf"({'|'.join(groups.coefficient_names())})(_\w+)", setting.flag)
        if not match:
            yield [setting.flag], setting
        else:
            found.setdefault(match[2], ([], setting))[0].append(setting.flag)
    yield from found.values()


def _flag_row(names: Sequence[str], setting: Any) -> tuple[str, str, str]:
    """Name, default and help; a default that the help says in words goes to its column."""
    text = re.sub(r"^\w+_coef: ", "", setting.help)
    in_words = re.search(r" \(default: ([^()]*)\)$", text)
    if in_words:
        text = text[: in_words.start()]
        default = in_words[1].removeprefix("here ")
    else:
        default = "" if setting.default in (None, ()) else spelled(setting.default)
    choices = setting.parser.choices
    text += f": {', '.join(choices)}" if 0 < len(choices) < 10 else ""
    return code(*names), default, text


def search_flags() -> str:
    """Every flag of a search, by section."""
    from neural_alignment.search import flags as of_searches

    rows = []
    for _, settings in of_searches.sections():
        rows += [_flag_row([setting.flag], setting) for setting in settings]
    return table(("flag", "default", ""), rows)


def search_spaces() -> str:
    """The search spaces of the package."""
    from neural_alignment.search import space_file

    spaces = map(space_file.load, space_file.names())
    return table(("space", "searches"), ((code(s.name), s.description) for s in spaces))


def optimizers() -> str:
    """The update rules."""
    from neural_alignment import optimizers as registry

    return table(
        ("optimizer", "update"),
        ((code(name), _summary(registry.rule(name))) for name in registry.names()),
    )


def models() -> str:
    """The models, and the options that their builders take, with the builders' defaults."""
    from neural_alignment.models import registry

    rows = []
    for name in registry.names():
        given = inspect.signature(registry.builder(name)).parameters
        own = set(registry.options(name)) - {"input_shape", "num_classes", "alignment"}
        taken = (f"{code(o)} {spelled(given[o].default)}" for o in given if o in own)
        rows.append((code(name), _summary(registry.builder(name)), ", ".join(taken)))
    return table(("model", "what", "options and their defaults"), _alike(rows))


def _alike(rows: Iterable[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Rows that differ in the first cell alone, as one."""
    found: dict[tuple[str, ...], list[str]] = {}
    for first, *rest in rows:
        found.setdefault(tuple(rest), []).append(first)
    for rest, first in found.items():
        yield ", ".join(first), *rest


def datasets() -> str:
    """The data sets and the options that their loaders take."""
    from neural_alignment import data

    return table(
        ("data set", "options"), ((code(name), code(*data.options(name))) for name in data.names())
    )


def layers() -> str:
    """The layers: sites, kernels, and the rule's weights."""
    from neural_alignment import layers as public
    from neural_alignment.layers.table import VERSIONS

    rows = []
    for name in public.__all__:
        made = getattr(public, name)
        if made is public.Aligned or not inspect.isclass(made):
            continue
        if issubclass(made, public.Aligned):
            sites = [place.name for place in made.places if place.name]
            kernels = [place.kernel for place in made.places]
            count = f"{len(kernels)}" + (f": {code(*sites)}" if sites else "")
            weights = code(*(f"backward_{kernel}" for kernel in kernels))
            rows.append((code(name), count, code(*kernels), weights))
        elif issubclass(made, tuple(VERSIONS)):
            rows.append((code(name), "those of the layers inside", "", ""))
    return table(("layer", "sites", "beside", "the rule's weights"), _alike(rows))


def figures() -> str:
    """The figures, with what each needs and the command that draws it."""
    from neural_alignment.figures import registry

    rows = []
    for name, kind in registry.KINDS.items():
        given = {registry.RUNS: " RUNS", registry.SEARCH: " SEARCH"}.get(kind.of, "")
        command = f"`neural-alignment figures{given} --figure={name}`"
        rows.append((kind.source, kind.about, kind.needs or "nothing", command))
    return table(("published as", "shows", "needs", "command"), rows)


def presets() -> str:
    """The published settings, from the heads of their files."""
    rows = []
    for name, head in _heads(""):
        result = head["Result"].replace(" Not run by us.", "")
        rows.append((code(name), head[""], head["Source"], head["Cost"], result))
    return table(("preset", "what", "source", "cost", "expected"), rows)


def presets_of(prefix: str, *keys: str) -> str:
    """The presets whose names begin so, with parts of the heads of their files."""
    rows = ((code(n), head[""], *(head.get(k, "") for k in keys)) for n, head in _heads(prefix))
    return table(("preset", "what", *map(str.lower, keys)), rows)


def _heads(prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The heads of the preset files: the text after each key, the title after none."""
    from neural_alignment.config import preset_names, presets

    kinds = ("digits_", "mnist_", "makrout_", "lenet_")
    for name in preset_names():
        if next((kind for kind in kinds if name.startswith(kind)), "") != prefix:
            continue
        head, _, _ = (presets.PRESETS / f"{name}.cfg").read_text().partition("\n\n")
        text = re.sub(r"^# ?", "", head, flags=re.MULTILINE)
        parts = re.split(r"^(Source|Command|Cost|Result|Device|Note): ", text, flags=re.MULTILINE)
        keys = ["", *parts[1::2]]
        yield name, {key: " ".join(p.split()) for key, p in zip(keys, parts[::2], strict=True)}


def _summary(made: type) -> str:
    return (inspect.getdoc(made) or "").partition("\n")[0]


def _alignments() -> Any:
    return importlib.import_module("neural_alignment.alignments")


TABLES: dict[str, Callable[[], str]] = {
    "rules": rules,
    "rules-coefficients": rules_coefficients,
    "rules-options": rules_options,
    "rules-cost": rules_cost,
    "rules-other-defaults": rules_other_defaults,
    "rules-projection-options": rules_projection_options,
    "figures": figures,
    "flags": flags,
    "search-flags": search_flags,
    "search-spaces": search_spaces,
    "optimizers": optimizers,
    "models": models,
    "datasets": datasets,
    "layers": layers,
    "presets": presets,
    "presets-digits": lambda: presets_of("digits_", "Note"),
    "presets-mnist": lambda: presets_of("mnist_", "Source", "Result", "Note"),
    "presets-makrout": lambda: presets_of("makrout_", "Result", "Note"),
    "presets-lenet": lambda: presets_of("lenet_", "Source", "Result"),
}


def refreshed(page: str) -> str:
    """A page's text with its tables as the code has them now.

    Args:
        page: the text.

    Returns:
        The text with every table between its marks made anew.

    Raises:
        KeyError: a mark names no table.
    """
    return _PLACE.sub(lambda m: m["begin"] + TABLES[m["name"]]() + m["end"], page)


def places(page: str) -> list[str]:
    """The names of the tables that a page has."""
    return [match["name"] for match in _PLACE.finditer(page)]


def main() -> None:
    """Writes the pages that are behind, and says which."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = refreshed(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
