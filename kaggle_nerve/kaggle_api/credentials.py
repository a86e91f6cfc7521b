"""Find the credentials that the official client would use. Their values never leave this module, except as a
list of texts to blank out."""

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api.environment import PROXIES

TOKEN, PAIR, LOGIN = "access token", "user name and key", "login"
SETTINGS_PAGE = "https://www.kaggle.com/settings"
BLANK = "***"

HOW_TO_GET = (
    f"No Kaggle credentials were found: open {SETTINGS_PAGE}, press 'Generate New Token' under API, set "
    "KAGGLE_API_TOKEN to the token or save it as ~/.kaggle/access_token (a kaggle.json from 'Create Legacy API "
    "Key' goes to ~/.kaggle/kaggle.json), and run the same command again; `kaggle-nerve rehearse` needs none."
)

PATTERNS = (
    re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?)(?:(?:bearer|basic)\s+)?[^\s'\",}]+"),
    re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]+"),
    re.compile(r"(?i)([?&][\w-]*(?:signature|token|credential|accessid|key)[\w-]*=)[^&\s'\")]+"),
    re.compile(r"(?i)(://)[^/\s@:]+:[^/\s@]+(?=@)"),
    re.compile(r"()\bKGAT_\w+"),
)
"""Patterns of anything that looks like a credential: headers, signed addresses, passwords in addresses."""


@dataclass(frozen=True)
class Credential:
    """The credential that the client would use. ``ignored``: sources of others, over which it takes precedence."""

    kind: str
    where: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    kind: str
    where: str
    values: tuple[str, ...] = field(repr=False)


def find(variables: Mapping[str, str] | None = None) -> Credential | None:
    """Return the credential that the client would use with these variables (default: the user's), or None."""
    variables = os.environ if variables is None else variables
    candidates = list(_candidates(variables))
    return _choose(candidates) if candidates else None


def require(variables: Mapping[str, str]) -> Credential:
    """Return the credential. Raises NerveError with instructions if there is none, or if it is no token or key."""
    candidates = list(_candidates(variables))
    if not candidates:
        raise NerveError(" ".join([HOW_TO_GET, *problems(variables)]))
    for value in candidates[0].values:
        if fault := _fault(candidates[0], value):
            raise NerveError(fault)
    return _choose(candidates)


def _choose(candidates: list[_Candidate]) -> Credential:
    first, *others = candidates
    return Credential(first.kind, first.where, tuple(candidate.where for candidate in others))


def _fault(candidate: _Candidate, value: str) -> str:
    """Say why ``value`` cannot be sent to Kaggle, and what to do; '' if it can.

    The client would put it into an HTTP header, and a refused header is quoted in the error, secret and all.
    """
    what = f"{'access token' if candidate.kind == TOKEN else 'key'} of {candidate.where}"
    if candidate.kind == TOKEN and value.startswith("{"):
        return (
            f"The {what} is the text of a kaggle.json, not a token: save that file as ~/.kaggle/kaggle.json, or "
            f"make a token at {SETTINGS_PAGE} under API."
        )
    if candidate.kind == PAIR and value.startswith("KGAT_"):
        return (
            f"The {what} is an access token, not the key of a kaggle.json: set KAGGLE_API_TOKEN to it, or save it "
            "alone as ~/.kaggle/access_token."
        )
    if value.startswith("\ufeff") or "\ufffd" in value or "\0" in value:
        return f"The {what} is stored in another encoding than plain UTF-8: save it anew as plain text, without BOM."
    if len(lines := value.split()) > 1:
        kind = "lines" if len(value.splitlines()) == len(lines) else "words"
        return f"The {what} has {len(lines)} {kind}: leave only the newest one, on one line."
    if not (value.isascii() and value.isprintable()):
        return f"The {what} has characters that no token has: copy it anew from {SETTINGS_PAGE}, under API."
    return ""


def problems(variables: Mapping[str, str] | None = None) -> list[str]:
    """Describe what is wrong with existing files of credentials, one sentence per problem."""
    variables = os.environ if variables is None else variables
    config = _config_file(variables)
    kaggle = _home(variables) / ".kaggle"
    names = ("access_token", "access_token.txt", "credentials.json")
    sentences = [
        fault for path in (*(kaggle / name for name in names), config) if (fault := _unreadable(path))
    ]
    if sentences or not config.is_file():
        return sentences
    if _read_json(config) is None:
        sentences.append(
            f"{config} is not readable JSON, so it is ignored: download it again from {SETTINGS_PAGE}."
        )
    if os.name != "nt" and config.stat().st_mode & 0o044:
        sentences.append(f"{config} can be read by other users: run `chmod 600 {config}`.")
    return sentences


def _unreadable(path: Path) -> str:
    """Say why an existing file cannot be read; '' if it can, or does not exist."""
    try:
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as fault:
        return f"{path} cannot be read ({fault.strerror}), so it is ignored: change its permissions."
    return ""


def secrets(variables: Mapping[str, str]) -> frozenset[str]:
    """Return the texts that must not appear anywhere: all tokens, keys and passwords that are found, even if the
    client does not use them, as they are and as libraries quote them. Texts of up to 3 characters are left out."""
    values = {value for candidate in _candidates(variables) for value in candidate.values}
    values |= {variables.get("KAGGLE_API_TOKEN", ""), variables.get("KAGGLE_KEY", "")}
    for name in PROXIES:
        values |= _passwords(variables.get(name, ""))
    for value in tuple(values):
        # A file with several lines, or a kaggle.json in a token's place.
        values |= {line.strip("\ufeff \t") for line in value.splitlines()} | _strings(value)
    config = _config(variables)
    if {"username", "key"} <= config.keys():
        values.add(f"{config['username']}:{config['key']}")
    return frozenset(form for value in values if len(value) > 3 for form in _quotations(value))


def _strings(text: str) -> set[str]:
    """Return the secrets in the text of a kaggle.json or credentials.json."""
    try:
        value = json.loads(text)
    except ValueError:
        return set()
    secret = ("key", "token", "password")
    items = value.items() if isinstance(value, dict) else ()
    return {str(item) for name, item in items if any(word in name.lower() for word in secret)}


def _quotations(value: str) -> set[str]:
    """Return ``value`` and the forms in which error messages quote it: escaped, URL-encoded and in Base64."""
    raw = value.encode("utf-8", "surrogateescape")
    escaped = {repr(value)[1:-1], ascii(value)[1:-1], repr(raw)[2:-1], json.dumps(value)[1:-1]}
    encoded = {quote(value, safe=""), quote(value), quote_plus(value)}
    base64_forms = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return {value} | escaped | encoded | base64_forms | {form.rstrip("=") for form in base64_forms}


def blank(text: str, hide: frozenset[str]) -> str:
    """Return ``text`` without the texts in ``hide`` and without anything that looks like a credential."""
    for secret in sorted(hide, key=len, reverse=True):
        text = text.replace(secret, BLANK)
    for pattern in PATTERNS:
        text = pattern.sub(rf"\g<1>{BLANK}", text)
    return text


def _candidates(variables: Mapping[str, str]) -> Iterator[_Candidate]:
    """Yield credentials in the order in which the client looks for them."""
    home = _home(variables)
    if variables.get("KAGGLE_KERNEL_RUN_TYPE") and variables.get("KAGGLE_DATA_PROXY_URL"):
        token_file = variables.get("KAGGLE_API_V1_TOKEN", "")
        if token_file and (text := _read(Path(token_file))):
            yield _Candidate(TOKEN, "the Kaggle notebook", (text,))
    token = variables.get("KAGGLE_API_TOKEN", "")
    if token and (text := _token(token)):
        yield _Candidate(TOKEN, "KAGGLE_API_TOKEN", (text,))
    for name in ("access_token", "access_token.txt"):
        if text := _read(home / ".kaggle" / name):
            yield _Candidate(TOKEN, str(home / ".kaggle" / name), (text,))
    config = _config(variables)
    if {"username", "key"} <= config.keys():
        source = (
            "KAGGLE_USERNAME and KAGGLE_KEY" if variables.get("KAGGLE_KEY") else str(_config_file(variables))
        )
        yield _Candidate(PAIR, source, (config["key"],))
    login = home / ".kaggle" / "credentials.json"
    login_data = _read_json(login) or {}
    if login_data.get("refresh_token"):
        yield _Candidate(
            LOGIN, str(login), (login_data["refresh_token"], str(login_data.get("access_token") or ""))
        )


def _token(value: str) -> str:
    """Read KAGGLE_API_TOKEN, which is the token itself or the name of a file that holds it."""
    try:
        return _read(Path(value)) if Path(value).exists() else value
    except OSError:  # longer than a file name may be
        return value


def _home(variables: Mapping[str, str]) -> Path:
    return Path(variables.get("HOME") or variables.get("USERPROFILE") or Path.home())


def config_folder(variables: Mapping[str, str]) -> Path:
    """Return the folder of kaggle.json, which the client makes if it does not exist."""
    home = _home(variables)
    if folder := variables.get("KAGGLE_CONFIG_DIR"):
        return Path(folder)
    with suppress(OSError):  # a home that cannot be read
        if (home / ".kaggle").exists():
            return home / ".kaggle"
    return Path(variables.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"


def _config_file(variables: Mapping[str, str]) -> Path:
    return config_folder(variables) / "kaggle.json"


def _config(variables: Mapping[str, str]) -> dict[str, str]:
    """Read kaggle.json, overridden by KAGGLE_USERNAME and KAGGLE_KEY: each value may come from either."""
    stored = _read_json(_config_file(variables)) or {}
    overrides = {"username": variables.get("KAGGLE_USERNAME"), "key": variables.get("KAGGLE_KEY")}
    return {name: str(value) for name in overrides if (value := overrides[name] or stored.get(name))}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    except OSError:
        return ""


def _read_json(path: Path) -> dict[str, str] | None:
    try:
        value = json.loads(_read(path))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _passwords(address: str) -> set[str]:
    try:
        password = urlsplit(address if "//" in address else f"//{address}").password or ""
    except ValueError:
        return set()
    return {password, unquote(password)}
