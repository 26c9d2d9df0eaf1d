"""Layers: a package imports only packages of lower layers, and Kubeflow stays outside of the library."""

import ast

import pytest

from helpers.paths import ROOT

PACKAGE = ROOT / "rarft"

# From the top down. Packages and modules of one layer do not import each other.
LAYERS = [
    {"cli"},
    {"steps"},
    {"cluster"},
    {"training", "evaluation", "synthetic", "negatives"},
    {"models", "rewards"},
    {"annotations", "checkpoint"},
    {"embeddings", "distributed", "plugins", "prompts", "reporting", "video"},
    {"chat", "completion", "storage"},
    {"hub"},
    {"answers", "environment"},
    {"errors"},
    {"crash_log", "logs", "progress", "segments"},
    {"network", "redaction", "user_cache"},
]
LAYER_OF = {name: height for height, layer in enumerate(LAYERS) for name in layer}
# The library as components, pipelines and the command line see it. Constants are contracts and may come from anywhere.
PUBLIC = {
    "rarft.steps",
    "rarft.environment",
    "rarft.errors",
    "rarft.logs",
    "rarft.redaction",
    "rarft.storage.location",
    "rarft.__version__",
}


def imports(path):
    """Yield the dotted names that a file imports; `from x import y` counts as x.y."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(path):
    """Return the package or module directly below `rarft` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_package_has_a_layer():
    assert {package_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"} == set(LAYER_OF)


def test_imports_point_downward():
    """This excludes import cycles between packages, too."""
    upward = []
    for path in PACKAGE.rglob("*.py"):
        package = package_of(path)
        if package == "__init__":
            continue
        for name in imports(path):
            top, _, rest = name.partition(".")
            imported = rest.partition(".")[0]
            if (top == "rarft" and imported in LAYER_OF and imported != package) and (
                LAYER_OF[imported] <= LAYER_OF[package]
            ):
                upward.append(f"{path.relative_to(ROOT)}: {name}")
            if top in {"components", "pipelines", "kfp"} and package != "cli":
                upward.append(f"{path.relative_to(ROOT)}: {name}")
    assert upward == []


def test_components_do_not_import_pipelines():
    upward = [
        path.name for path in (ROOT / "components").rglob("*.py") for name in imports(path) if "pipelines" in name
    ]
    assert upward == []


@pytest.mark.parametrize("folder", ["rarft/cli", "components", "pipelines"])
def test_upper_layers_use_the_public_api(folder):
    """They import steps, errors, logging, locations and constants from the library, and nothing else."""
    internal = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if name.startswith("rarft.")
        and not name.startswith("rarft.cli.")
        and not any(name == public or name.startswith(f"{public}.") for public in PUBLIC)
        and not name.rpartition(".")[2].isupper()
    ]
    assert internal == []
