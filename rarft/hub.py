"""Models of the Hugging Face Hub: whether a name can be loaded, found out in seconds instead of minutes."""

import logging
import os

from rarft.environment import read_variable
from rarft.errors import InputError
from rarft.network import request_status

logger = logging.getLogger(__name__)

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_DEFAULT_ENDPOINT = "https://huggingface.co"


def hub_endpoint() -> str:
    """Return the URL of the Hub: HF_ENDPOINT, or the public one."""
    return (read_variable("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Check whether the Hub must not be used."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE)


def check_hub_model(name: str, file: str = "config.json") -> None:
    """Check that a model can be downloaded, or that it is in the local cache of the Hub.

    If the Hub cannot be reached, a cached model is used, and this process and its children stay offline.

    Args:
        name: Name on the Hub, such as Qwen/Qwen2.5-VL-7B-Instruct.
        file: File that the model contains.

    Raises:
        InputError: The model does not exist, needs a token, or can neither be reached nor is cached.
    """
    from huggingface_hub import constants, get_token, try_to_load_from_cache

    is_cached = isinstance(try_to_load_from_cache(name, file), str)
    if is_offline() or constants.HF_HUB_OFFLINE:
        if not is_cached:
            raise InputError(f"{name}: not in the local cache of the Hub, and HF_HUB_OFFLINE is set; use a folder")
        return
    endpoint = hub_endpoint()
    status = request_status(f"{endpoint}/{name}/resolve/main/{file}", get_token())
    if isinstance(status, str) or status >= 500:
        problem = f"returned {status}" if isinstance(status, int) else f"is unreachable ({status})"
        if not is_cached:
            fix = "check the network and HF_ENDPOINT, or use a folder"
            raise InputError(f"{name}: the Hub {endpoint} {problem}; {fix}")
        logger.warning("the Hub %s %s: using the cached %s", endpoint, problem, name)
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True  # read from the environment at import
    elif status in (401, 403):
        raise InputError(
            f"{name}: the Hub {endpoint} returned {status}: no such model, or HF_TOKEN lacks access to it; check the "
            "name, accept the model's terms there, and set HF_TOKEN"
        )
    elif status == 404:
        raise InputError(f"{name}: the Hub {endpoint} has no such model, or no {file} in it; check the name")
