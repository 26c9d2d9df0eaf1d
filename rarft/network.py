"""Check whether a server can be reached, within seconds, before a library tries it for minutes."""

import threading
import urllib.error
import urllib.request
from http.client import HTTPException

TIMEOUT_S = 8.0  # on an error, libraries wait for minutes


def request_status(url: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> int | str:
    """Return the HTTP status of a HEAD request, or why there is no answer. Proxies of the environment are used.

    Args:
        url: URL of the server or of a page.
        token: Bearer token to send.
        timeout_s: Seconds for all of it, including the name lookup, which has no timeout in Python.
    """
    answer: list[int | str] = []
    headers = {"User-Agent": "rarft", **({"Authorization": f"Bearer {token}"} if token else {})}

    def send() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD", headers=headers)
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                answer.append(response.status)
        except urllib.error.HTTPError as error:
            answer.append(error.code)
        except (OSError, HTTPException, ValueError) as error:
            answer.append(" ".join(str(getattr(error, "reason", error)).split()))

    thread = threading.Thread(target=send, daemon=True)  # it must not delay the end of the process
    thread.start()
    thread.join(timeout_s)
    return answer[0] if answer else f"no answer within {timeout_s:g} s"


def find_unreachable(url: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Return why a server cannot be reached; None if it answers, whatever the answer is."""
    status = request_status(url, timeout_s=timeout_s)
    return status if isinstance(status, str) else None
