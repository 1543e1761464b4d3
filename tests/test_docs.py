"""README and docs/: links lead somewhere, and what they name (settings, targets, commands, files, assets) is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from facecaption_assets.commands.cli import main
from facecaption_assets.settings import PREFIX, SETTINGS

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
PAGES = (README, *sorted((REPOSITORY / "docs").glob("*.md")))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OUTSIDE = ("http://", "https://", "mailto:")
COMMAND = re.compile(r"(?:\.venv/bin/)?facecaption(?: --debug| --profile \S+)* (?P<name>[a-z]+)\b(?P<rest>.*)")
PATHS = re.compile(r"(?:facecaption_ml|facecaption_assets|tests|bench|deploy|docs)/[\w./-]*")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as code hosts make them: lower case, spaces as hyphens, no punctuation."""
    titles = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code(page: Path) -> Iterator[str]:
    """The lines of a page's code blocks, fenced or indented, and its code spans, without comments."""
    text = text_of(page)
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    blocks += re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]
    yield from (line.split(" #")[0].strip() for line in blocks + spans)


@each_page
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(prose(page)) if not link.startswith(OUTSIDE)]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(REPOSITORY), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_every_setting_that_is_named_is_one(page: Path) -> None:
    variables = {setting.variable for setting in SETTINGS.values()}
    named = set(re.findall(rf"{PREFIX}[A-Z0-9_]*[*…]?", text_of(page)))
    for name in named:
        prefix = name.rstrip("*…")
        known = name in variables if prefix == name else any(variable.startswith(prefix) for variable in variables)
        assert known, name


@each_page
def test_every_target_of_make_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match[1] for line in code(page) if (match := re.match(r"make ([a-z-]+)", line))}
    assert named <= targets
    assert page != README or {"demo", "test", "ui", "ablation"} <= named


@each_page
def test_every_command_has_its_options(page: Path) -> None:
    for line in code(page):
        match = COMMAND.match(line)
        if match is None:
            continue
        command = main.get_command(click.Context(main), match["name"])
        assert command is not None, line
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", match["rest"])) <= known, line


@each_page
def test_every_file_of_the_repository_that_is_named_exists(page: Path) -> None:
    named = {word for line in code(page) for word in line.split()[:1] if PATHS.fullmatch(word)}
    assert [path for path in sorted(named) if not (REPOSITORY / path).exists()] == []


def test_the_readme_is_two_pages_with_few_pictures() -> None:
    text = text_of(README)
    assert len(text.splitlines()) <= 200
    assert 1 <= len(re.findall(r"!\[", text)) <= 3


def test_the_readme_leads_to_every_page() -> None:
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= {
        link.partition("#")[0] for link in LINK.findall(text_of(README))
    }


def test_the_readmes_asset_graph_is_that_of_the_definitions() -> None:
    from facecaption_assets.definitions import defs

    section = text_of(README).split("## The assets")[1].split("\n## ")[0]
    chains = [line.split("-->") for line in section.splitlines() if "-->" in line]
    shown = {
        (above.strip(), below.strip())
        for chain in chains
        for sources, targets in pairwise(chain)
        for above in sources.split("&")
        for below in targets.split("&")
    }
    graph = defs.resolve_asset_graph()
    keys = graph.toposorted_asset_keys
    assert shown == {
        (parent.to_user_string(), key.to_user_string()) for key in keys for parent in graph.get(key).parent_keys
    }
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {key.to_user_string() for key in keys}


def test_an_anchor_is_made_as_code_hosts_make_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A model, the grammar & `code`\n```\n# no heading\n```\n## How to add …\n", encoding="utf-8")
    assert anchors(page) == {"a-model-the-grammar--code", "how-to-add-"}
