"""`python -m rarft.cli`, which is how torchrun starts it."""

import contextlib
import os
import sys

# Python searches the current folder first, where a `datasets.py` or a `docker/` would replace a library. It stays the
# last, for rewards in `package.module:function`. PYTHONSAFEPATH leaves it out.
# The folder may be deleted.
with contextlib.suppress(OSError):
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
        sys.path.append(sys.path.pop(0))

try:
    from rarft.cli.main import main
except KeyboardInterrupt:
    raise SystemExit("rarft: interrupted") from None

main()
