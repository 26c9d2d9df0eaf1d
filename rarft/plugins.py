"""Functions of the user's own, named `path/to/file.py:function` or `package.module:function`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rarft.errors import InputError, did_you_mean
from rarft.storage.files import local_path
from rarft.storage.hashing import hash_text


def _load_module(source: str) -> Any:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = local_path(source).resolve()
    # Registered, as dataclasses look their module up; under a name that no installed module has.
    name = f"rarft_plugin_{path.stem}_{hash_text(str(path))[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # its name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for its imports of files next to it, which may be late
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_function(name: str, kind: str, known: Iterable[str]) -> Callable[..., Any]:
    """Return a user's function.

    Args:
        name: `path/to/file.py:function` or `package.module:function`.
        kind: What the function is, for error messages.
        known: Built-in names, for error messages.

    Raises:
        InputError: The function does not exist or cannot be imported.
    """
    source, colon, function_name = name.rpartition(":")
    if not colon:
        own = "your own as path/to/file.py:function or package.module:function"
        hint = did_you_mean(name, known) or f"; use {', '.join(known)}, or {own}"
        raise InputError(f"{name}: no such {kind}{hint}")
    if source.endswith(".py") and not local_path(source).is_file():
        raise InputError(f"{name}: no such file {source}; check the path")
    try:
        module = _load_module(source)
    except (Exception, SystemExit) as error:  # importing the user's code may raise anything
        raise InputError(f"{name}: cannot be imported ({type(error).__name__}: {error}); fix {source}") from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        own_names = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        public = sorted(key for key in own_names if callable(getattr(module, key)) and not key.startswith("_"))
        raise InputError(f"{name}: no function {function_name} in {source}; use one of {', '.join(public)}")
    return function
