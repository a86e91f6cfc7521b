"""Explain failures of the official client, and what to do about them.

`guard` reports what was raised: its text, its classes and Kaggle's HTTP status. If these leave a choice,
Kaggle's own wording decides; the patterns come from answers to versions 2.2.4 and 2.2.5 of the client, and
from users' reports.
"""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import versions
from kaggle_nerve.kaggle_api.credentials import SETTINGS_PAGE, Credential

CLIENT, DISK, UNAUTHORIZED, LIMIT, RULES = "client", "disk", "unauthorized", "daily-limit", "rules"
NOT_FOUND, RATE, NETWORK, SERVER, CORRUPT = "not-found", "rate", "network", "server", "corrupt"
TIMEOUT, LINK, UPLOAD, BROKEN = "timeout", "link", "upload-failed", "broken"
REFUSED = "refused"
"""Fallback kind: Kaggle gave a reason that is not known here."""

UNANSWERED = (NETWORK, SERVER, TIMEOUT, BROKEN)
"""Kinds after which it is unknown whether Kaggle carried out the request."""


class KaggleError(NerveError):
    """A failure of the client, of Kaggle, or of the connection; ``kind`` is one of this module's names."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind

    @property
    def reason(self) -> str:
        """The sentence without its next step, for use in another one."""
        return str(self).rpartition(": ")[0]


@dataclass(frozen=True)
class Fault:
    """An exception raised by the client: its text, its class name, the names of its base classes and of its
    causes' classes, the status and address of an HTTP answer, and the number of a system error."""

    message: str
    name: str = ""
    types: frozenset[str] = frozenset()
    status: int | None = None
    url: str = ""
    errno: int | None = None

    @classmethod
    def read(cls, fields: dict[str, Any], blank: Callable[[str], str]) -> Self:
        """Build from `guard`'s message; ``blank`` removes credentials."""
        types = fields["types"]
        return cls(
            blank(fields["message"]),
            types[0],
            frozenset(types),
            fields["status"],
            fields["url"],
            fields["errno"],
        )

    @property
    def words(self) -> str:
        """The last line of the text, where Python, the client and Kaggle put the reason."""
        return last_line(self.message)

    @property
    def is_from_storage(self) -> bool:
        """Whether a signed storage address answered, which expires, and not Kaggle's API."""
        return bool(self.url) and not API.match(self.url)


@dataclass(frozen=True)
class Failure:
    """A kind of failure, its signs (any one is enough), and the sentence for the user."""

    kind: str
    sentence: str
    types: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()


def make_failure(
    kind: str,
    sentence: str,
    *,
    types: tuple[str, ...] = (),
    words: str = "",
    statuses: tuple[int, ...] | range = (),
) -> Failure:
    """Make a Failure; ``words`` is a case-insensitive pattern."""
    pattern = re.compile(words, re.IGNORECASE) if words else None
    return Failure(kind, sentence, frozenset(types), pattern, frozenset(statuses))


API = re.compile(r"https?://(api\.kaggle\.com|www\.kaggle\.com|localhost/api)/")
"""Addresses of Kaggle's API; all others belong to the storage."""

FULL = (errno.ENOSPC, errno.EDQUOT)

SIX = make_failure(
    CLIENT, "The kaggle client does not start because its package six is missing: run `pip install six`."
)
LINK_REFUSED = make_failure(
    LINK,
    "The download address that Kaggle gave is refused, as it is when it has expired: run the same command again, "
    "which gets a new one.",
)
FULL_DISK = make_failure(
    DISK,
    "The disk became full while {doing}: free some space, or choose another folder{folder_option}, and run the same "
    "command again; what is there already is kept.",
    words=r"No space left on device|Disk quota exceeded",
)

GENERAL = (
    make_failure(
        CLIENT,
        f"The kaggle client does not start ({{last}}): run `pip install --force-reinstall {versions.TESTED}`.",
        types=("ImportError",),
    ),
    FULL_DISK,
    make_failure(
        CLIENT,
        "The kaggle client cannot make its own folder ({last}): set KAGGLE_CONFIG_DIR to one that can be written, "
        "and run the same command again.",
        types=("PermissionError", "FileNotFoundError"),
        words=r"Read-only file system",
    ),
    make_failure(
        NETWORK,
        "The certificate that came in Kaggle's place is not trusted while {doing}: behind a proxy that opens "
        "TLS, set REQUESTS_CA_BUNDLE to its certificates, and run the same command again.",
        types=("SSLError", "SSLCertVerificationError"),
    ),
    make_failure(
        NETWORK,
        "The proxy lets nothing through to Kaggle while {doing}: check http_proxy and https_proxy, and run the "
        "same command again.",
        types=("ProxyError",),
    ),
    make_failure(
        NETWORK,
        "Kaggle cannot be reached, or the connection broke, while {doing}: check the network, and run the same "
        "command again.",
        types=(
            *("ConnectionError", "Timeout", "TimeoutError", "ChunkedEncodingError", "ProtocolError"),
            *("IncompleteRead", "gaierror"),
        ),
        words=r"Response ended prematurely",
    ),
    make_failure(
        NETWORK,
        "Something else answered in Kaggle's place while {doing}, such as the login page of a network: open a page in "
        "a browser, check http_proxy and https_proxy, and run the same command again.",
        types=("JSONDecodeError",),
    ),
    make_failure(
        UNAUTHORIZED,
        "Kaggle does not accept the {credential} (401, while {doing}): make a new token at "
        f"{SETTINGS_PAGE} under API, put it in the old one's place and run the same command again.{{hidden}}",
        types=("SystemExit",),
        words=r"Authentication required|Unauthenticated|Unauthorized|Invalid credentials",
        statuses=(401,),
    ),
)
"""Failures of any command before Kaggle looks at the request, in the order in which they are checked."""

COMPETITION = (
    make_failure(
        LIMIT,
        "Kaggle takes no more submissions from this account today ({last}): run the same command again after "
        "midnight UTC.",
        words=r"submission.{0,60}(limit|allowance|today|tomorrow)|(limit|allowance|today).{0,60}submission",
    ),
    make_failure(
        RULES,
        "Kaggle refuses this account (403, while {doing}) because it has not accepted the competition's rules: "
        "open https://www.kaggle.com/competitions/{slug}/rules, press 'Late Submission' or 'I Understand and "
        f"Accept' (Kaggle may want a phone number first, at {SETTINGS_PAGE}), and run the same command again.",
        words=r"accept\b.{0,60}\brules|403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
    ),
    make_failure(
        NOT_FOUND,
        "Kaggle does not know the competition {slug}, or no longer has it for this account (404, while {doing}): "
        "look at https://www.kaggle.com/competitions/{slug} in a browser, logged in with the same account.",
        words=r"\bNot ?Found\b|no competition|Could not find competition",
        statuses=(404,),
    ),
    make_failure(
        UPLOAD,
        "Kaggle's storage did not take the file, so nothing was submitted: run the same command again.",
        words=r"Could not submit to competition",
    ),
)
"""Failures of the competition's commands."""

TRANSPORT = (
    make_failure(
        RATE,
        "Kaggle wants fewer requests (429, while {doing}): wait some minutes and run the same command again.",
        words=r"Too Many Requests|Rate limited|RESOURCE_EXHAUSTED",
        statuses=(429,),
    ),
    make_failure(
        CORRUPT,
        "The download has a wrong size: run the same command again.",
        words=r"does not match expected size",
    ),
    make_failure(
        SERVER,
        "Kaggle has a fault of its own while {doing} ({last}): wait some minutes and run the same command again.",
        words=r"Service Unavailable|Internal (Server )?Error|Bad Gateway|Gateway Timeout|temporarily|try again later",
        statuses=range(500, 600),
    ),
)
"""Failures of any command, checked last."""

LONGEST = 300


@dataclass(frozen=True)
class Wording:
    """Descriptions of the failures of one kind of object: its own failures, its page on Kaggle (with
    ``{slug}``), and the option that selects another folder."""

    answers: tuple[Failure, ...]
    page: str
    folder_option: str = ""


COMPETITION_WORDING = Wording(COMPETITION, "https://www.kaggle.com/competitions/{slug}", " with --data")


@dataclass(frozen=True)
class About:
    """The subject of a command: a competition's slug or, with another wording, ``user/slug``."""

    slug: str
    wording: Wording = COMPETITION_WORDING


REHEARSAL_GONE = (
    "The rehearsal's server does not answer, or broke off, while {doing}: see that `kaggle-nerve rehearse --serve` "
    "still runs, and run the same command again."
)


def explain(
    fault: Fault,
    doing: str,
    slug: str,
    credential: Credential | None,
    *,
    rehearsal: bool = False,
    wording: Wording = COMPETITION_WORDING,
) -> KaggleError:
    """Convert a fault, already blanked, into a KaggleError. ``doing`` says what the client was doing."""
    is_answer = not fault.types or bool(fault.types & {"HTTPError", "ValueError"})
    facts = {
        "last": fault.words if is_answer else f"{fault.name}: {fault.words}",
        "doing": doing,
        "slug": slug,
        "credential": f"{credential.kind} from {credential.where}" if credential else "credentials",
        "hidden": _hidden_note(credential),
        "folder_option": wording.folder_option,
    }
    failure = _match(fault, (*GENERAL, *wording.answers, *TRANSPORT))
    if failure:
        is_server_gone = rehearsal and failure.kind == NETWORK
        sentence = REHEARSAL_GONE if is_server_gone else failure.sentence
        return KaggleError(failure.kind, sentence.format(**facts))
    if not is_answer:
        sentence = f"The kaggle client broke while {doing} ({facts['last']}): {versions.next_step()}."
        return KaggleError(BROKEN, sentence)
    sentence = (
        "Kaggle refused while {doing} and said {last!r}: run the same command again later, and if it says the "
        f"same, look at {wording.page} for what has changed."
    )
    return KaggleError(REFUSED, sentence.format(**facts))


def _match(fault: Fault, candidates: tuple[Failure, ...]) -> Failure | None:
    """Match by exception types, then by words, then by Kaggle's status."""
    if "ModuleNotFoundError" in fault.types and "six" in fault.words:
        return SIX
    if fault.errno in FULL:
        return FULL_DISK
    for failure in candidates:
        if failure.types & fault.types:
            return failure
    if fault.is_from_storage and fault.status in (400, 403, 404):
        return LINK_REFUSED
    for failure in candidates:
        # Some commands call a missing login (401) a missing permission.
        if failure.words and failure.words.search(fault.words) and fault.status != 401:
            return failure
    return next((failure for failure in candidates if fault.status in failure.statuses), None)


def timed_out(doing: str, seconds: float) -> KaggleError:
    """Make the error for a client that was stopped because it exceeded its time limit."""
    return KaggleError(
        TIMEOUT,
        f"Kaggle did not answer within {seconds:.0f} s while {doing}: check the network, and run the same "
        f"command again.",
    )


def last_line(text: str) -> str:
    """Return the last non-empty line that the client wrote, where Python and the client put the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else "the client said nothing"
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def _hidden_note(credential: Credential | None) -> str:
    if credential is None or not credential.hidden:
        return ""
    others = " and ".join(credential.hidden)
    return f" It hides {others}: remove it (or unset it) if that one is good."
