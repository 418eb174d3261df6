"""Keep passwords and tokens so that a stolen database gives neither away, and slow down guessing.

A password is stored as `scrypt$n$r$p$salt$key`, salt and key in base64; a token as its SHA-256.
"""

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass

_N, _R, _P = (
    2**14,
    8,
    5,
)  # 16 MB and about 300 ms a guess: OWASP's floor for scrypt is 2**17 with p=1, or 2**14 with p=5
_TOKEN_BYTES = 32
# Checked when a login is unknown, so that the answer takes as long as for a known one: no password has this key.
NO_PASSWORD = f"scrypt${_N}${_R}${_P}$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

# Stored for an account that has no password: nothing opens it, and its first letters tell that there is none.
LOCKED = "scrypt$2$1$1$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def hash_password(password: str, *, salt: bytes | None = None) -> str:
    """Return what to store for a password; `salt` is given only to compare."""
    salt = secrets.token_bytes(16) if salt is None else salt
    return "$".join(["scrypt", str(_N), str(_R), str(_P), _text(salt), _text(_derive(password, salt, _N, _R, _P))])


def verify_password(password: str, stored: str) -> bool:
    """Say whether `password` is the one stored, in time that does not depend on how much of it is right.

    >>> verify_password("correct horse", hash_password("correct horse"))
    True
    >>> verify_password("battery staple", hash_password("correct horse"))
    False
    """
    kind, n, r, p, salt, key = stored.split("$")
    if kind != "scrypt":
        return False
    derived = _derive(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(derived, base64.b64decode(key))


def new_token() -> str:
    """Return an opaque bearer token that nobody can guess."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_token(token: str) -> bytes:
    """Return what to store for a token. One round suffices: a token has 256 random bits."""
    return hashlib.sha256(token.encode()).digest()


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=64 * 1024 * 1024, dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass
class _Guesses:
    failed: int
    until_s: float


class Throttle:
    """Counts failed logins by key (login name, address) and says how long a key must wait.

    `allowed` failures are free within `window_s`; after that every further attempt must wait until the window has
    passed since the last failure. Holds at most `most` keys, the oldest forgotten first, so that guesses at made-up
    names cannot fill the memory.
    """

    def __init__(self, *, allowed: int, window_s: float, most: int = 10_000) -> None:
        self._allowed = allowed
        self._window_s = window_s
        self._most = most
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()

    def wait_s(self, key: str, *, now_s: float) -> float:
        """Return the seconds until `key` may try again; 0 means now."""
        guesses = self._guesses.get(key)
        if guesses is None or guesses.failed < self._allowed:
            return 0.0
        return max(0.0, guesses.until_s - now_s)

    def fail(self, key: str, *, now_s: float) -> None:
        guesses = self._guesses.pop(key, None)
        failed = guesses.failed if guesses is not None and guesses.until_s > now_s else 0
        self._guesses[key] = _Guesses(failed + 1, now_s + self._window_s)
        if len(self._guesses) > self._most:
            self._guesses.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Uncount one failure: the attempt was counted when it began, and it was right."""
        guesses = self._guesses.get(key)
        if guesses is not None and guesses.failed > 1:
            guesses.failed -= 1
        else:
            self.forget(key)

    def forget(self, key: str) -> None:
        self._guesses.pop(key, None)
