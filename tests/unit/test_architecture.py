"""The house: a room imports only rooms below it, and the library knows nothing of the layers above it."""

import ast

from helpers.paths import ROOT

PACKAGE = ROOT / "rarft"

# From the top down; `cli` alone may reach up to `pipelines`.
LAYERS = [
    "cli", "arguments", "processes", "steps", "cluster", "grpo", "evaluation", "rewards", "references", "cold_start",
    "qwen",
    "samples", "riq", "video", "html", "progress", "remembered", "mirror", "manifest", "fingerprint", "storage",
    "objects", "response", "segments", "errors",
]  # fmt: skip


def imports(path):
    """Dotted names that a file imports, and the aliases of `from x import y` as x.y."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_its_height():
    rooms = {layer_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(LAYERS)


def test_imports_point_downward():
    upward = []
    for path in PACKAGE.rglob("*.py"):
        room = layer_of(path)
        if room == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            reaches_out = parts[0] in {"components", "pipelines", "kfp"} and room != "cli"
            is_ours = parts[0] == "rarft" and parts[1] in LAYERS
            if reaches_out or (is_ours and LAYERS.index(parts[1]) < LAYERS.index(room)):
                upward.append(f"{path.name}: {name}")
    assert upward == []
