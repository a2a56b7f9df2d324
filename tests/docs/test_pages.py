"""What holds for every page: links lead somewhere, names exist, commands parse."""

import importlib
import re
import subprocess

import pytest
from absl import flags

from neural_alignment import alignments, config, data, models
from neural_alignment.cli.prepare import Preparation
from neural_alignment.config.options import define_group
from neural_alignment.search import flags as search_flags
from neural_alignment.search import space_file
from tests.docs.pages import PAGES, README, ROOT, anchors, commands, links, quoted, relative

COMMANDS = [command for page in PAGES for command in commands(page)]
WHOLE = [command for command in COMMANDS if command.is_whole]
# Written apart, so that this file does not find itself.
PLACES = ("work", "tmp", "root", "home", "Users", "mnt")

page_by_page = pytest.mark.parametrize("page", PAGES, ids=relative)


@page_by_page
def test_links_lead_somewhere(page):
    missing = []
    for file, anchor in links(page):
        if file.startswith("https://"):
            continue
        assert "://" not in file, f"not https: {file}"
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{file}#{anchor}")
    assert missing == []


def test_the_readme_leads_to_every_page():
    linked = {(ROOT / file).resolve() for file, _ in links(README) if "://" not in file}
    assert [relative(page) for page in PAGES if page != README and page not in linked] == []


@page_by_page
def test_no_place_of_one_machine(page):
    text = page.read_text()
    assert re.findall(rf"(?<![\w.:/])/(?:{'|'.join(PLACES)})\b\S*", text) == []
    assert re.findall(r"\b(?!127\.0\.0\.1)\d{1,3}(?:\.\d{1,3}){3}\b", text) == []
    assert re.findall(r"https?://[^\s)/]*(?::\d+|localhost|\.internal|\.local)\S*", text) == []


@page_by_page
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"@[A-Z_]+@|\b(?:TODO|FIXME|TBD|XXX)\b", page.read_text()) == []


@page_by_page
def test_presets_and_rules_exist(page):
    text = page.read_text()
    presets = re.findall(r"--preset[= ]([a-z]\w*)", text)
    assert set(presets) <= set(config.preset_names())
    spaces = re.findall(r"--space[= ]([a-z]\w*)(?![\w.])", text)
    assert set(spaces) <= set(space_file.names())
    rules = re.findall(r"--alignment[= ]([a-z]\w*)", text)
    rules += re.findall(r"alignment=\"(\w+)\"", text)
    rules += re.findall(r"alignments\.get\(\"(\w+)\"", text)
    assert set(rules) <= {"backprop", *alignments.names()}
    own = {
        kind: re.findall(rf"@{kind}\.register\(\"(\w+)\"\)", text) for kind in ("data", "models")
    }
    datasets, networks = {*own["data"], *data.names()}, {"mlp", *own["models"], *models.names()}
    assert set(re.findall(r"--dataset[= ]([a-z]\w*)", text)) <= datasets
    assert set(re.findall(r"--model[= ]([a-z]\w*)", text)) <= networks


@page_by_page
def test_files_exist(page):
    """Files of the repository that a page names in backquotes."""
    folders = ("neural_alignment", "scripts", "benchmarks", "tests", "docs")
    for name in quoted(page.read_text()):
        if re.fullmatch(rf"(?:{'|'.join(folders)})/[\w./]+", name):
            assert (ROOT / name).exists(), name


def test_there_are_commands():
    assert {command.script for command in COMMANDS} >= {
        "scripts/train.py",
        "scripts/evaluate.py",
        "scripts/search.py",
        "neural_alignment/cli/figures.py",
        "neural_alignment/cli/reproduce.py",
        "benchmarks/step_time.py",
    }
    assert len(WHOLE) > 8


def defined(script):
    """The flags that a script defines."""
    fv = flags.FlagValues()
    if script in ("scripts/train.py", "scripts/evaluate.py"):
        config.define_flags(fv)
    elif script == "scripts/search.py":
        search_flags.define_flags(fv)
    elif script == "scripts/prepare_imagenet.py":
        define_group(Preparation, fv)
    elif script.startswith("neural_alignment/cli/"):
        module = script.removesuffix(".py").replace("/", ".")
        importlib.import_module(module)._PROGRAM.define(fv)
    else:
        return set(
            re.findall(r"(?:DEFINE_\w+|define_path)\(\s*\"(\w+)\"", (ROOT / script).read_text())
        )
    return set(fv)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_flags_of_commands_exist(command):
    known = defined(command.script) | {"flagfile", "help", "helpfull"}
    assert {name for name in command.flags if name.removeprefix("no") not in known} <= known


@pytest.mark.parametrize("command", WHOLE, ids=str)
def test_commands_parse(command):
    fv = flags.FlagValues()
    if command.script in ("scripts/train.py", "scripts/evaluate.py"):
        config.define_flags(fv)
        rest = fv(config.expand([command.script, *command.arguments]))
        assert rest[1:] == []
        config.validate(fv)
    elif command.script == "scripts/search.py":
        search_flags.define_flags(fv)
        rest = fv([command.script, *command.arguments])
        if rest[1:2] == ["report"]:
            assert len(rest) == 3
        else:
            assert rest[1:] == []
            search_flags.plan_from(search_flags.read(fv))
    else:
        assert (ROOT / command.script).is_file()


def test_no_place_of_one_machine_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode:  # a copy without its history
        files = [path for path in ROOT.rglob("*") if ".venv" not in path.parts[len(ROOT.parts)]]
    else:
        files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    pattern = re.compile(rf"(?<![\w.:/])/(?:{PLACES[0]}|{PLACES[2]})/\w+")
    found = []
    for path in files:
        if path.suffix in {".py", ".md", ".cfg", ".toml", ".txt", ".cff", ".sh"} and path.is_file():
            found += [f"{relative(path)}: {match}" for match in pattern.findall(path.read_text())]
    assert found == []
