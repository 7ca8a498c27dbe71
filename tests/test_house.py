"""The rules of the house: who imports whom, how large things grow, what no one writes, what README and help say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "videochat_flash"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# Module -> the modules of ours it may import. A folder counts as one module.
BELOW_CHAT = {
    *("config", "files", "reader", "video", "attention", "vision", "merge", "connector", "sight", "dropout", "llm"),
    *("prompt", "model", "generate", "released", "weights"),
}
CORE = {*BELOW_CHAT, "chat"}
ALLOWED: dict[str, set[str]] = {
    "config": set(),
    "files": set(),
    "attention": set(),
    "merge": set(),
    "assets": set(),
    **{name: {"config"} for name in ("dropout", "synth", "released")},
    "vision": {"config", "attention"},
    "reader": set(),
    "video": {"config", "reader"},
    "sight": {"config", "files"},
    **{name: {"config", "merge"} for name in ("connector", "cost")},
    "llm": {"config", "attention", "dropout"},
    "prompt": {"config", "sight"},
    "model": {"config", "vision", "connector", "llm", "dropout", "prompt", "sight"},
    "generate": {"config", "llm", "dropout", "sight", "prompt", "model"},
    "weights": {"config", "files", "llm", "sight", "prompt", "model", "generate", "released"},
    "convert": {"config", "files", "released", "weights"},
    "chat": BELOW_CHAT,
    "prefix": CORE,
    "evidence": CORE,
    "steady": CORE,
    "quantise": CORE,
    "__init__": CORE,
    "mp4": {"files", "video"},
    "train": {*BELOW_CHAT, "failures", "bucket", "cost", "folders", "synth", "strict"},
    "needle": {"config", "files", "video", "mp4", "synth"},
    "grade": {"synth", "times"},
    "bucket": {"files"},
    **{name: set() for name in ("folders", "looks", "remote", "strict", "stats", "times", "cluster")},
    "failures": set(),
    "journal": {"files"},
    "niah": {
        *CORE,
        *("failures", "mp4", "prefix", "steady", "synth", "needle", "grade", "looks", "remote", "stats", "journal"),
    },
    "longvid": {
        *CORE,
        *("mp4", "cluster", "prefix", "bucket", "synth", "needle", "grade", "looks", "remote", "journal", "strict"),
        *("times", "folders"),
    },
    "eval": {
        *CORE,
        *("prefix", "synth", "needle", "grade", "times", "stats", "journal", "remote", "session", "facts", "show"),
        "sheet",
        "failures",
    },
    "bench": {*CORE, "failures", "prefix", "steady", "quantise", "cost", "synth"},
    "serve": {*CORE, "failures", "prefix", "steady", "evidence", "cluster"},
    "sheet": {"video"},
    **{name: set() for name in ("show", "options")},  # these two and the next five are the command line's own
    "errors": {"show", "failures"},
    "facts": {"config", "sight", "video", "weights"},
    "session": {*CORE, "prefix", "steady", "quantise", "evidence", "facts", "sheet", "show"},
    "needle_commands": {"files", "options", "errors", "show", "needle", "eval"},
    "batch": {*CORE, "failures", "prefix", "session", "journal"},
    "batch_cluster": {*CORE, "session", "batch"},
    "batch_command": {"batch", "batch_cluster", "cluster", "errors", "files", "options", "session", "show", "chat"},
    "demo": {*CORE, "facts", "grade", "show", "session", "sheet", "needle", "synth"},
    "cli": {
        *CORE,
        "convert",
        "show",
        "options",
        "errors",
        "facts",
        "session",
        "demo",
        "batch_command",
        "needle_commands",
        "eval",
        "train",
        "niah",
        "longvid",
        "bench",
        "serve",
    },
}
# Commands: they end as a command ends, show bars, and one measures what a user would get.
ALSO = {
    "train/report.py": {
        *("chat", "grade", "times", "stats", "needle", "prefix", "show", "errors", "journal", "session"),
    },
    "train/command.py": {"show"},
    "train/ablate.py": {"show", "errors"},
    "niah/ask.py": {"session"},
    "eval/commands.py": {"errors", "options"},
    "serve/command.py": {"errors", "options"},
    "serve/owner.py": {"session"},
    "niah/commands.py": {"errors", "options", "session", "show"},
    "longvid/commands.py": {"errors", "options", "session", "show"},
    "bench/commands.py": {"errors", "needle", "options", "session", "show"},
    "bench/tasks.py": {"facts", "show"},
    **{f"bench/{name}.py": {"show"} for name in ("gauge", "stages")},
    "bench/compare.py": {"facts", "show"},
}
LAZY = {"__init__.py", "cli.py", "reader.py"}  # where an import may stand inside a function, of the core and the edge


def module_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imported(file: str, tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Dotted names of everything imported anywhere in a file, ours written out in full."""
    home = ["videochat_flash", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name == "videochat_flash":
                yield from ((f"{name}.{alias.name}", node) for alias in node.names)
            else:
                yield name, node
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from ((word, node) for word in _named(file, node))


def _named(file: str, call: ast.Call) -> list[str]:
    """What import_module is given; relative names written out."""
    words = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    package = ".".join(["videochat_flash", *file.split("/")[:-1]])
    return [package + word if word.startswith(".") else word for word in words]


def ours(file: str, tree: ast.AST) -> set[str]:
    names = (name.split(".") for name, _ in imported(file, tree))
    found = {name[1] for name in names if name[0] == "videochat_flash" and len(name) > 1}
    return found - {module_of(file), "__version__"}


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def places(found: list[tuple[str, ast.AST]]) -> list[str]:
    return [f"{file}:{getattr(node, 'lineno', 0)}" for file, node in found]


def everywhere(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> list[tuple[str, ast.AST]]:
    return [(file, node) for file, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kind)]


# Imports.


@pytest.mark.parametrize("file", TREES)
def test_imports_point_down_only(file: str) -> None:
    assert module_of(file) in ALLOWED, f"{file} has no row in the table of who may import whom"
    allowed = ALLOWED[module_of(file)] | ALSO.get(file, set())
    assert ours(file, TREES[file]) <= allowed


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("llm.py", "from .chat import x", {"chat"}),
        ("llm.py", "from . import chat", {"chat"}),
        ("llm.py", "def f():\n    import videochat_flash.chat", {"chat"}),
        ("llm.py", "from videochat_flash import chat as c", {"chat"}),
        ("llm.py", "from videochat_flash.chat import x", {"chat"}),
        ("train/a.py", "from ..llm import x\nfrom .b import y\nfrom .. import cli", {"llm", "cli"}),
        ("__init__.py", "import importlib\nimportlib.import_module('.chat', __name__)", {"chat"}),
        ("llm.py", "import torch\nfrom collections.abc import x", set()),
    ],
)
def test_every_way_of_importing_is_seen(file: str, source: str, found: set[str]) -> None:
    assert ours(file, ast.parse(source)) == found


def test_the_config_needs_no_torch_and_one_file_reads_video_and_one_writes_it() -> None:
    """The benchmark's plain readers are the yardstick that ours is held against."""
    top = {file: {name.split(".")[0] for name, _ in imported(file, tree)} for file, tree in TREES.items()}
    assert not {"torch", "numpy", "jaxtyping"} & top["config.py"]
    assert [file for file, names in top.items() if "av" in names] == ["bench/readers.py", "mp4.py", "reader.py"]


def test_imports_stand_at_the_top_but_for_the_three_doors() -> None:
    inside = [
        (file, node)
        for file, tree in TREES.items()
        for fn in functions(tree)
        for node in ast.walk(fn)
        if isinstance(node, ast.Import | ast.ImportFrom) and module_of(file) in CORE and file not in LAZY
    ]
    assert places(inside) == []


# Size.


def test_the_core_can_be_read_in_one_sitting() -> None:
    lines = {file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in TREES}
    assert sum(count for file, count in lines.items() if module_of(file) in CORE) < 3000
    assert {file: count for file, count in lines.items() if count >= 400} == {}


def test_functions_are_short() -> None:
    sizes = {
        f"{file}:{fn.name}": (fn.end_lineno or fn.lineno) - fn.lineno + 1
        for file, tree in TREES.items()
        for fn in functions(tree)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}


# What no one writes.


def test_no_configuration_is_read_with_a_default() -> None:
    guesses = [
        (file, node)
        for file, node in everywhere(ast.Call)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and "config" in ast.unparse(node.args[0])
    ]
    assert places(guesses) == []


def test_no_exception_is_caught_blindly() -> None:
    blind = [
        (file, node)
        for file, node in everywhere(ast.ExceptHandler)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & set(re.findall(r"\w+", ast.unparse(node.type))))
    ]
    assert places(blind) == []


def test_the_core_takes_no_keywords_it_does_not_name() -> None:
    core = [(file, fn) for file, tree in TREES.items() if module_of(file) in CORE for fn in functions(tree)]
    assert places([(file, fn) for file, fn in core if fn.args.kwarg]) == []


def test_only_cli_and_train_print() -> None:
    printed = [
        (file, node)
        for file, node in everywhere(ast.Call)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and module_of(file) not in ("cli", "train")
    ]
    assert places(printed) == []


def test_no_global_random_state_is_touched() -> None:
    seeds = r"torch\.(manual_seed|seed|set_rng_state)"
    banned = re.compile(rf"({seeds}|(np|numpy)\.random\.(seed|rand\w*|choice)|random\.\w+)")
    drawn = [
        (file, node)
        for file, node in everywhere(ast.Call)
        if isinstance(node, ast.Call) and module_of(file) in CORE and banned.fullmatch(ast.unparse(node.func))
    ]
    assert places(drawn) == []


# What is told.


def tree_in(text: str) -> set[str]:
    """Paths named in the fenced block that begins with videochat_flash/; folders by indentation or written out."""
    block = re.search(r"^```\w*\n(videochat_flash/.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block, "README.md has no fenced block that begins with videochat_flash/"
    paths, folders = set(), [(-1, "")]
    for line in block.group(1).splitlines()[1:]:
        entry = re.match(r"([\s│├└─|`+-]*)([\w./-]+)", line)
        if not entry:
            continue
        depth, name = len(entry.group(1)), entry.group(2)
        while folders[-1][0] >= depth:
            folders.pop()
        path = folders[-1][1] + name
        if name.endswith("/"):
            folders.append((depth, path))
        elif name.endswith(".py"):
            paths.add(path)
    return paths


def test_the_tree_of_the_readme_is_read_however_it_is_drawn() -> None:
    drawn = "├── cli.py   the command line\n├── train/   a room\n│   └── loop.py  x.py\n└── llm.py\n"
    listed = "  cli.py\n  train/loop.py   steps\n  llm.py  decoder\n"
    drawn, listed = (f"words\n```text\nvideochat_flash/\n{lines}```\nmore.py\n" for lines in (drawn, listed))
    assert tree_in(drawn) == tree_in(listed) == {"cli.py", "train/loop.py", "llm.py"}


def test_the_readme_shows_the_files_that_there_are() -> None:
    packages = {file for file in TREES if file.endswith("__init__.py")}
    assert tree_in((ROOT / "README.md").read_text(encoding="utf-8")) - packages == set(TREES) - packages


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_line_answers_without_loading_torch(option: str) -> None:
    asked = f"""
import sys
from videochat_flash.cli import main
sys.argv = ["vcflash", {option!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
loaded = sorted({{"torch", "av", "tokenizers", "numpy"}} & set(sys.modules))
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_module_says_what_it_is() -> None:
    silent = [file for file, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []
    assert set(chain.from_iterable(ALLOWED.values())) <= set(ALLOWED)
