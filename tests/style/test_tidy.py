"""The rules of docs/STYLE.md that a machine can judge: lengths, names, leftovers."""

import ast
import re

from tests.style.sources import ROOT, python_sources, text_files

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = {"app": 500, "loadtest": 500, "tests": 600}

BANNED = {"manager", "service", "helper", "util", "utils", "handler", "processor"}
BANNED |= {"data", "info", "base", "common", "impl"}
# The data directory is what people call it; data_received is asyncio's name, handler aiohttp's.
ALLOWED_PHRASES = re.compile(r"data_?dir(ectory)?|data_received|^handler$", re.IGNORECASE)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*")

CATCH_ALLS = {
    "app/web/middleware.py",  # the boundary of every request
    "app/web/fast_lane.py",  # the boundary of those that never reach it
    "app/kernel/loop.py",  # the boundary of every worker
    "app/kernel/group_commit.py",  # hands what happened to each that waits
}
MAY_SLEEP = {
    "tests/waiting.py",  # the one way to wait
    "tests/contract/test_web_hostile.py",  # plays a slow client
    "tests/faults/lab/timing.py",  # a fault lasts
}
UNFINISHED = re.compile(r"\b(TODO|FIXME|HACK)\b(?!\(#\d+\))")


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def words(name: str) -> set[str]:
    return {word.lower() for word in WORD.findall(ALLOWED_PHRASES.sub("", name))}


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{source.name}: {function.name}": length
        for source in python_sources()
        for function in functions(source.tree)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_no_file_is_longer_than_can_be_held_in_mind():
    long = {
        source.name: length
        for source in python_sources()
        if (length := source.text.count("\n")) > FILE_LINES_MAX[source.name.partition("/")[0]]
    }
    assert long == {}


def test_no_name_says_only_what_kind_of_code_it_is():
    bad = set()
    for source in python_sources("app", "loadtest"):
        names = set(source.path.relative_to(ROOT).with_suffix("").parts)
        names |= {node.name for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)}
        names |= {function.name for function in functions(source.tree)}
        bad |= {f"{source.name}: {name}" for name in names if words(name) & BANNED}
    assert bad == set()


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches any exception and does not raise it again at its end."""
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False
    if handler.type is None:
        return True
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(caught & {"Exception", "BaseException"})


def test_only_the_boundaries_catch_everything():
    places = {
        source.name
        for source in python_sources("app", "loadtest")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    }
    assert places - CATCH_ALLS == set()


def test_nothing_is_left_for_later_without_an_issue_number():
    ourselves = ROOT / "tests" / "style" / "test_tidy.py"
    files = [source.path for source in python_sources()]
    files += text_files("lua/**/*.lua", "app/**/*.sql", "docs/**/*.md", "*.md")
    left = {
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        if path != ourselves
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    }
    assert left == set()


def test_only_the_command_line_prints():
    printing = {
        source.name
        for source in python_sources("app")
        if not source.name.startswith("app/cli/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    assert printing == set()


def test_no_test_sleeps():
    sleeping = {
        f"{source.name}:{node.lineno}"
        for source in python_sources("tests")
        if source.name not in MAY_SLEEP
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"asyncio.sleep", "time.sleep"}
        and ast.unparse(node.args[0]) != "0"
    }
    assert sleeping == set()


def test_every_folder_of_the_service_says_in_one_sentence_what_it_is():
    packages = [source for source in python_sources("app") if source.path.name == "__init__.py"]
    told = {source.name: ast.get_docstring(source.tree) or "" for source in packages}
    told.pop("app/__init__.py")  # the map: several lines

    assert {name for name, sentence in told.items() if not sentence.endswith(".")} == set()
    assert {source.name for source in packages if len(source.tree.body) > 1} == set()


def test_the_map_names_every_folder():
    the_map = (ROOT / "app" / "__init__.py").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "app").glob("[a-z]*.py")}

    assert {name for name in folders | modules if f"    {name} " not in the_map} == set()
