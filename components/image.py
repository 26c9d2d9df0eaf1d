"""The image that the components run in."""

import os

from rarft import __version__

# The components' bodies call the library that is in this image; `RARFT_IMAGE` names another at compile time.
IMAGE = os.environ.get("RARFT_IMAGE", f"ghcr.io/rarft/rarft-python:{__version__}")
