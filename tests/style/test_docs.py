"""The pages say what is so: pictures are fresh, links lead somewhere, names exist."""

import ast
import re
from functools import cache

import click
import pytest

from app.cli.doorbuster import main
from app.settings import PREFIX, Settings, describe
from tests.style import states
from tests.style.sources import ROOT, python_sources, text_files

PAGES = [
    *text_files("*.md", "docs/**/*.md", "lua/*.md", "loadtest/*.md", "tests/*.md", "deploy/*.md")
]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OUR_FILE = re.compile(r"`((?:app|lua|tests|loadtest|docs|deploy)/[\w./-]*\w)`")
TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
COMMAND = re.compile(r"\bdoorbuster((?: [a-z][a-z-]*)+)")
ROUTE = re.compile(r"`(GET|POST|PUT|DELETE) (/[^\s`?]*)")
SECTION = r"§\d+(?:\.\d+)*"
CITED = re.compile(rf"([\w/-]+\.md)\s+({SECTION}(?:(?:,|\s+and)\s+{SECTION})*)")
NUMBERED = re.compile(r"^#+ (\d+(?:\.\d+)*)\.? ", re.MULTILINE)


def page_name(page):
    return page.relative_to(ROOT).as_posix()


def prose(page):
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """The names by which GitHub links to a page's headings."""
    titles = [title for _, title in HEADING.findall(prose(page))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code(page):
    """What a page shows as code, in lines and in blocks."""
    return "\n".join(CODE.findall(page.read_text(encoding="utf-8")))


@cache
def declared_routes():
    """Every (method, path) that the code declares as an Endpoint."""
    return frozenset(_declarations())


def _declarations():
    for source in python_sources("app"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Endpoint":
                said = {
                    keyword.arg: keyword.value.value
                    for keyword in node.keywords
                    if isinstance(keyword.value, ast.Constant)
                }
                if {"method", "path"} <= said.keys():
                    yield said["method"], re.sub(r"\{\w+\}", "{}", said["path"])


def test_the_drawn_states_are_those_of_the_code():
    assert states.PAGE.read_text(encoding="utf-8") == states.page(), "run `make states`"


def test_both_readmes_have_the_same_chapters_and_the_same_commands():
    english, chinese = (ROOT / name for name in ("README.md", "README.zh-CN.md"))

    assert [level for level, _ in HEADING.findall(prose(english))] == [
        level for level, _ in HEADING.findall(prose(chinese))
    ]
    commands = re.compile(r"^(?:make|\.venv/bin/doorbuster|doorbuster) [^#\n]*", re.MULTILINE)
    assert [line.strip() for line in commands.findall(english.read_text(encoding="utf-8"))] == [
        line.strip() for line in commands.findall(chinese.read_text(encoding="utf-8"))
    ]


def test_every_section_that_code_cites_is_there():
    sources = {source.name: source.text for source in python_sources()}
    sources |= {page_name(file): file.read_text("utf-8") for file in text_files("lua/**/*.lua")}
    missing = set()
    for name, text in sources.items():
        for cited, sections in CITED.findall(text):
            page = ROOT / cited
            there = set(NUMBERED.findall(prose(page))) if page.is_file() else set()
            wanted = {section.removeprefix("§") for section in re.findall(SECTION, sections)}
            missing |= {f"{name}: {cited} §{section}" for section in wanted - there}
    assert missing == set()


def test_every_setting_has_its_row():
    rows = (ROOT / "docs/INTERFACES.md").read_text(encoding="utf-8")
    names = {name.removeprefix(PREFIX) for name, _ in describe(Settings())}

    assert {name for name in names if f"`{name}`" not in rows} == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_leads_somewhere(page):
    dead = set()
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.add(link)
    assert dead == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_file_named_is_there(page):
    named = set(OUR_FILE.findall(prose(page)))

    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_make_target_named_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())

    assert set(TARGET.findall(code(page))) - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_route_named_is_served(page):
    if page.name == "CHANGELOG.md":
        return  # tells of routes that have gone as well
    named = {
        (method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path in ROUTE.findall(prose(page))
    }

    assert named - declared_routes() == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_named_exists(page):
    unknown = set()
    for words in COMMAND.findall(code(page)):
        command = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
        if command is None:
            unknown.add(words)
    assert unknown == set()
