"""What MkDocs asks while it builds the site: pages that are not in docs/, links that lead there.

README.md is the start page, CHANGELOG.md and its like are pages, the notebooks are pages with what
they show, and every public subpackage has one of the API reference, made from the names that it
exports. A public name without a docstring is an error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Page of the site: file of the repository.
OUTSIDE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
NOTEBOOKS = [
    ROOT / "notebooks" / f"{name}.ipynb"
    for name in "first_model convert_and_watch own_rule feedback_against_backprop search".split()
]
# What the API reference has, in order.
MODULES = {
    "neural_alignment": "what `import neural_alignment as na` gives",
    "neural_alignment.layers": "Keras's layers with a rule; conversion of models",
    "neural_alignment.alignments": "the rules and what they are made of",
    "neural_alignment.callbacks": "for plain `fit`: the clock, angles, R",
    "neural_alignment.optimizers": "update rules, two optimizers in one, schedules",
    "neural_alignment.optimizers.rate_scheduler": "functions of the global step",
    "neural_alignment.models": "networks by name",
    "neural_alignment.data": "data sets by name",
    "neural_alignment.metrics": "angles and norms",
    "neural_alignment.error_metrics": "errors against those of backpropagation",
    "neural_alignment.connection_metrics": "which pairs are connected",
    "neural_alignment.figures": "figures over what was measured",
    "neural_alignment.maps": "bilinear maps with two kernels",
    "neural_alignment.training": "the trainer's step and loop; a run as a Keras model",
}


def public(module: str) -> dict[str, Any]:
    """The public names of a module, and what they stand for.

    Args:
        module: its name.

    Returns:
        Those of `__all__`, or its own classes and functions; subpackages are left out.
    """
    found = importlib.import_module(module)
    own = [
        name
        for name, value in vars(found).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module
    ]
    values = {name: getattr(found, name) for name in getattr(found, "__all__", own)}
    return {
        name: value
        for name, value in values.items()
        if callable(value) and getattr(value, "__module__", "").startswith("neural_alignment")
    }


def undocumented(name: str, value: Any) -> list[str]:
    """A public name, and the public methods of a class, that have no docstring.

    Args:
        name: with its module.
        value: what it stands for.

    Returns:
        Their names. A method may have that of a base class; Keras documents what it declares.
    """
    import keras

    lacking = [] if (value.__doc__ or "").strip() else [name]
    if inspect.isclass(value):
        bases = (keras.layers.Layer, keras.optimizers.Optimizer, keras.callbacks.Callback)
        methods = (n for n in vars(value) if n[0] != "_" and not any(hasattr(b, n) for b in bases))
        lacking += [
            f"{name}.{method}"
            for method in methods
            if inspect.isroutine(getattr(value, method))
            and not inspect.getdoc(getattr(value, method))
        ]
    return lacking


def reference() -> dict[str, str]:
    """The pages of the API reference.

    Returns:
        Place to text.

    Raises:
        ValueError: a public name has no docstring.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    lacking: list[str] = []
    pages = {}
    index = ["# API reference", "", "| module | |", "|---|---|"]
    for module, about in MODULES.items():
        short = module.removeprefix("neural_alignment.").replace(".", "_")
        lines = [f"# {module}", "", _first_paragraph(module), ""]
        for name, value in sorted(public(module).items()):
            lacking += undocumented(f"{module}.{name}", value)
            lines += [f"::: {value.__module__}.{value.__qualname__}", ""]
        pages[f"api/{short}.md"] = "\n".join(lines)
        index.append(f"| [{module}]({short}.md) | {about} |")
    if lacking:
        raise ValueError(f"Expected a docstring. Received none: {', '.join(lacking)}")
    return {"api/index.md": "\n".join(index) + "\n", **pages}


def _first_paragraph(module: str) -> str:
    return (inspect.getdoc(importlib.import_module(module)) or "").partition("\n\n")[0]


def notebook_page(path: pathlib.Path) -> str:
    """A notebook as a page, with what its cells show.

    Args:
        path: of the file.

    Returns:
        Markdown.
    """
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                encoded = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="output" src="data:image/png;base64,{encoded}">')
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def linked(markdown: str, page: str) -> str:
    """A page's text with links as they are on the site, and tables without their marks.

    Args:
        markdown: as it is in the repository.
        page: its place on the site.

    Returns:
        The text.
    """
    text = re.sub(r"\]\((?:\.\./)?notebooks/(\w+)\.ipynb", r"](notebooks/\1.md", markdown)
    text = re.sub(r"^<!-- (?:generated: [\w-]+|end) -->$", "", text, flags=re.MULTILINE)
    for place, file in OUTSIDE.items():
        text = text.replace(f"](../{file}", f"]({place}").replace(f"]({file}", f"]({place}")
    text = re.sub(r"\[(?:docs/)?(\w+)\.md\]\(", r"[\1](", text)  # a page's name, not its file's
    if page in OUTSIDE:
        text = re.sub(r"\]\(docs/", "](", text)
        text = re.sub(r"(?:src|srcset)=\"docs/", 'src="', text)
        # Files that are no pages.
        text = re.sub(r"\[([^\]]*)\]\((?:LICENSE|CITATION\.cff|\.github/[^)]*)\)", r"\1", text)
    return text


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not in docs/, and their places in the menu."""
    from mkdocs.structure.files import File

    made = {place: (ROOT / file).read_text() for place, file in OUTSIDE.items()} | reference()
    made |= {f"notebooks/{path.stem}.md": notebook_page(path) for path in NOTEBOOKS}
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_config(config: Any) -> Any:
    """Puts the notebooks and the API reference into the menu."""
    short = [m.removeprefix("neural_alignment.") for m in MODULES]
    pages = [{name: f"api/{name.replace('.', '_')}.md"} for name in short]
    config["nav"].insert(1, {"Notebooks": [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]})
    config["nav"].append({"API": ["api/index.md", *pages]})
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns the repository's links into the site's."""
    return linked(markdown, page.file.src_uri)
