"""A service that speaks JSON over HTTP: bounded in time and tries, and one line for whatever it does."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from harness.errors import DataError

_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_LARGEST_BYTES = 1 << 26
_SHOWN = 200
_REMEDIES = {
    401: "name the environment variable with the key: model.key_env=NAME",
    403: "name the environment variable with the key: model.key_env=NAME",
    404: "compare model.url, model.api and model.served_name with what the server offers",
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """The address `base`, asked with `key` (or none), `timeout_s` seconds a request and `retries` more tries.

    A try is repeated, after a wait, where nobody answers or the answer is that of a busy or broken server. Raises
    DataError, in one line without the key, for whatever is no JSON object in the end.
    """

    base: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    retries: int = 3

    def get(self, path: str) -> dict[str, Any]:
        """Return what is at a path."""
        return self._ask(path, None)

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Return the answer to a JSON object."""
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None) -> dict[str, Any]:
        for tried in range(1, self.retries + 2):
            problem, wait_s = "", _FIRST_WAIT_S * 2 ** (tried - 1)
            try:
                return self._parsed(self._sent(path, body))
            except urllib.error.HTTPError as error:
                problem, again = self._refusal(error), error.code in _TRY_AGAIN
                wait_s = max(wait_s, _seconds(error.headers.get("Retry-After")))
            except (OSError, http.client.HTTPException) as error:
                problem, again = self._silence(error), True
            if not again or tried > self.retries:
                tries = f" ({tried} tries)" if tried > 1 else ""
                raise self._error(f"{problem}{tries}")
            time.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise AssertionError("the last try returns or raises")

    def _sent(self, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.base + path, data=body, headers=headers)
        with _opener(self.base).open(request, timeout=self.timeout_s) as answer:
            return answer.read(_LARGEST_BYTES)

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            text = _one_line(content.decode(errors="replace"))
            raise self._error(f"answered no JSON object but {text!r}; is it an OpenAI-compatible address?")
        return found

    def _error(self, problem: str) -> DataError:
        return DataError(f"model.url={self.base}: {problem}".replace(self.key or "\0", "***"))

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        try:
            said = error.read(_LARGEST_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        if 300 <= error.code < 400:
            return f"redirects to {error.headers.get('Location')}; give that address"
        remedy = f"; {_REMEDIES[error.code]}" if error.code in _REMEDIES else ""
        return f"answered {error.code} {error.reason}: {_one_line(_message(said))}{remedy}"

    def _silence(self, error: Exception) -> str:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return f"no answer in {self.timeout_s:g} s; see whether the server is busy, or raise model.timeout_s"
        if isinstance(reason, ConnectionRefusedError):
            return "refused the connection; start the server, or correct the address"
        return f"cannot be reached ({_one_line(str(reason)) or type(reason).__name__}); correct the address"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Stay where the user pointed: the key is for that server."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """Follow nothing."""
        return


def _opener(base: str) -> urllib.request.OpenerDirector:
    # A proxy cannot reach this machine's own addresses.
    return urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if _is_here(base) else []))


def _is_here(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _message(said: str) -> str:
    """Return the words of an error's body, in the forms that servers have for it."""
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return said
    for name in ("error", "message", "detail"):
        found = found.get(name, found) if isinstance(found, dict) else found
    return found if isinstance(found, str) else said


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]
