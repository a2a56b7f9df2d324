"""The pages, and what can be read off them: links, code, tables, commands."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from neural_alignment.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
OTHERS = [ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")]
PAGES = sorted([README, *OTHERS, *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4,}(.*)$", re.MULTILINE)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of a language."""
    return [code for found, code in _FENCE.findall(page.read_text()) if found == language]


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(file or address, anchor) of every link; an empty file is the page itself."""
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        file, _, anchor = target.partition("#")
        yield file, anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    bare = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in bare}


def tables(page: Path) -> dict[str, list[list[str]]]:
    """Rows of cells of all tables with the same head, by that head's line."""
    found: dict[str, list[list[str]]] = {}
    head, previous = None, ""
    for line in page.read_text().splitlines():
        if re.fullmatch(r"\|[-|: ]+\|", line):
            head = previous
            found.setdefault(head, [])
        elif not line.startswith("|"):
            head = None
        elif head is not None:
            found[head].append([cell.strip() for cell in line.strip("|").split("|")])
        previous = line
    return found


def quoted(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


@dataclasses.dataclass(frozen=True)
class Command:
    """A script and its arguments, as a page shows them.

    Args:
        page: where.
        script: its path.
        arguments: of the command line.
    """

    page: Path
    script: str
    arguments: tuple[str, ...]

    @property
    def flags(self) -> list[str]:
        """The flags' names."""
        return [
            argument.lstrip("-").partition("=")[0]
            for argument in self.arguments
            if argument.startswith("--")
        ]

    @property
    def is_whole(self) -> bool:
        """Whether nothing in it stands for something else, and it reads no file."""
        stands_for = re.compile(r"(^|=|,)[A-Z][A-Z0-9_]*$|\.\.\.|…|\$")
        reads = {"flagfile", "import"} & set(self.flags)
        return not reads and not any(map(stands_for.search, self.arguments))

    def __str__(self) -> str:
        return f"{relative(self.page)}: {self.script} {' '.join(self.arguments)}"


# What runs a command of the program: the script in front of it, or its module.
SCRIPTS = {name: f"neural_alignment/cli/{name}.py" for name in COMMANDS} | {
    "train": "scripts/train.py",
    "evaluate": "scripts/evaluate.py",
    "search": "scripts/search.py",
    "prepare": "scripts/prepare_imagenet.py",
}


def commands(page: Path) -> list[Command]:
    """Every command of scripts/, of benchmarks/ or of the program in a page's code."""
    text = page.read_text()
    code = [code for language, code in _FENCE.findall(text) if language in ("", "bash", "sh")]
    code.append("\n".join(_INDENTED.findall(_FENCE.sub("", text))))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(code))
    found = []
    for line in joined.splitlines():
        match = re.search(
            r"\bpython ((?:scripts|benchmarks)/\w+\.py)(.*)|\bneural-alignment ([a-z]+)\b(.*)", line
        )
        script = match and (match[1] or SCRIPTS.get(match[3]))
        if script:
            arguments = shlex.split(match[2] or match[4] or "", comments=True)
            found.append(Command(page, script, tuple(arguments)))
    return found
