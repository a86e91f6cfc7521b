"""What a failure of the official client means, and what to do about it.

`guard` says what was raised: its text, its classes, Kaggle's HTTP status. Where these leave a choice, Kaggle's own
words decide; they were gathered from answers to versions 2.2.4 and 2.2.5 of the client, and from its users' reports.
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
"""What no other kind fits: Kaggle gave a reason that is not known here."""

UNANSWERED = (NETWORK, SERVER, TIMEOUT, BROKEN)
"""Kinds after which nobody knows whether Kaggle did what it was asked to."""


class KaggleError(NerveError):
    """A failure of the client, of Kaggle, or on the way between; ``kind`` is one of this module's names."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind

    @property
    def reason(self) -> str:
        """The sentence without its next step, for use in another one."""
        return str(self).rpartition(": ")[0]


@dataclass(frozen=True)
class Fault:
    """What the client raised: its text, the name of its class, the names of all classes of it and of what it came
    from, and the status and address of an HTTP answer, or the number of an error of the system."""

    message: str
    name: str = ""
    types: frozenset[str] = frozenset()
    status: int | None = None
    url: str = ""
    errno: int | None = None

    @classmethod
    def read(cls, told: dict[str, Any], blank: Callable[[str], str]) -> Self:
        """From `guard`; ``blank`` takes credentials out."""
        types = told["types"]
        return cls(
            blank(told["message"]), types[0], frozenset(types), told["status"], told["url"], told["errno"]
        )

    @property
    def words(self) -> str:
        """The last line of the text, which is where Python, the client and Kaggle put the reason."""
        return last_words(self.message)

    @property
    def is_of_storage(self) -> bool:
        """Whether an address of the storage answered, which is signed for a while, and not Kaggle's API."""
        return bool(self.url) and not API.match(self.url)


@dataclass(frozen=True)
class Failure:
    """A kind of failure, what gives it away (one of them is enough), and what the user is told."""

    kind: str
    sentence: str
    types: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()


def answer(
    kind: str,
    sentence: str,
    *,
    types: tuple[str, ...] = (),
    words: str = "",
    statuses: tuple[int, ...] | range = (),
) -> Failure:
    """A Failure; ``words`` is a pattern in which case does not count."""
    pattern = re.compile(words, re.IGNORECASE) if words else None
    return Failure(kind, sentence, frozenset(types), pattern, frozenset(statuses))


API = re.compile(r"https?://(api\.kaggle\.com|www\.kaggle\.com|localhost/api)/")
"""Where the client asks; all other addresses are the storage's."""

FULL = (errno.ENOSPC, errno.EDQUOT)

SIX = answer(
    CLIENT, "The kaggle client does not start because its package six is missing: run `pip install six`."
)
LINK_REFUSED = answer(
    LINK,
    "The download address that Kaggle gave is refused, as it is when it has expired: run the same command again, "
    "which gets a new one.",
)
FULL_DISK = answer(
    DISK,
    "The disk became full while {doing}: free some space, or choose another folder{folder_option}, and run the same "
    "command again; what is there already is kept.",
    words=r"No space left on device|Disk quota exceeded",
)

GENERAL = (
    answer(
        CLIENT,
        f"The kaggle client does not start ({{last}}): run `pip install --force-reinstall {versions.TESTED}`.",
        types=("ImportError",),
    ),
    FULL_DISK,
    answer(
        CLIENT,
        "The kaggle client cannot make its own folder ({last}): set KAGGLE_CONFIG_DIR to one that can be written, "
        "and run the same command again.",
        types=("PermissionError", "FileNotFoundError"),
        words=r"Read-only file system",
    ),
    answer(
        NETWORK,
        "The certificate that came in Kaggle's place is not trusted while {doing}: behind a proxy that opens "
        "TLS, set REQUESTS_CA_BUNDLE to its certificates, and run the same command again.",
        types=("SSLError", "SSLCertVerificationError"),
    ),
    answer(
        NETWORK,
        "The proxy lets nothing through to Kaggle while {doing}: check http_proxy and https_proxy, and run the "
        "same command again.",
        types=("ProxyError",),
    ),
    answer(
        NETWORK,
        "Kaggle cannot be reached, or the connection broke, while {doing}: check the network, and run the same "
        "command again.",
        types=(
            *("ConnectionError", "Timeout", "TimeoutError", "ChunkedEncodingError", "ProtocolError"),
            *("IncompleteRead", "gaierror"),
        ),
        words=r"Response ended prematurely",
    ),
    answer(
        NETWORK,
        "Something else answered in Kaggle's place while {doing}, such as the login page of a network: open a page in "
        "a browser, check http_proxy and https_proxy, and run the same command again.",
        types=("JSONDecodeError",),
    ),
    answer(
        UNAUTHORIZED,
        "Kaggle does not accept the {credential} (401, while {doing}): make a new token at "
        f"{SETTINGS_PAGE} under API, put it in the old one's place and run the same command again.{{hidden}}",
        types=("SystemExit",),
        words=r"Authentication required|Unauthenticated|Unauthorized|Invalid credentials",
        statuses=(401,),
    ),
)
"""What may befall any command before Kaggle looks at what is wanted; looked through in this order."""

COMPETITION = (
    answer(
        LIMIT,
        "Kaggle takes no more submissions from this account today ({last}): run the same command again after "
        "midnight UTC.",
        words=r"submission.{0,60}(limit|allowance|today|tomorrow)|(limit|allowance|today).{0,60}submission",
    ),
    answer(
        RULES,
        "Kaggle refuses this account (403, while {doing}) because it has not accepted the competition's rules: "
        "open https://www.kaggle.com/competitions/{slug}/rules, press 'Late Submission' or 'I Understand and "
        f"Accept' (Kaggle may want a phone number first, at {SETTINGS_PAGE}), and run the same command again.",
        words=r"accept\b.{0,60}\brules|403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
    ),
    answer(
        NOT_FOUND,
        "Kaggle does not know the competition {slug}, or no longer has it for this account (404, while {doing}): "
        "look at https://www.kaggle.com/competitions/{slug} in a browser, logged in with the same account.",
        words=r"\bNot ?Found\b|no competition|Could not find competition",
        statuses=(404,),
    ),
    answer(
        UPLOAD,
        "Kaggle's storage did not take the file, so nothing was submitted: run the same command again.",
        words=r"Could not submit to competition",
    ),
)
"""What the competition's commands get for an answer."""

ON_THE_WAY = (
    answer(
        RATE,
        "Kaggle wants fewer requests (429, while {doing}): wait some minutes and run the same command again.",
        words=r"Too Many Requests|Rate limited|RESOURCE_EXHAUSTED",
        statuses=(429,),
    ),
    answer(
        CORRUPT,
        "The download has a wrong size: run the same command again.",
        words=r"does not match expected size",
    ),
    answer(
        SERVER,
        "Kaggle has a fault of its own while {doing} ({last}): wait some minutes and run the same command again.",
        words=r"Service Unavailable|Internal (Server )?Error|Bad Gateway|Gateway Timeout|temporarily|try again later",
        statuses=range(500, 600),
    ),
)
"""What may befall any command, looked for last."""

LONGEST = 300


@dataclass(frozen=True)
class Wording:
    """How the failures of one kind of thing are told: its own answers, its page on Kaggle (with ``{slug}``), and
    the option that names another folder."""

    answers: tuple[Failure, ...]
    page: str
    folder_option: str = ""


OF_COMPETITIONS = Wording(COMPETITION, "https://www.kaggle.com/competitions/{slug}", " with --data")


@dataclass(frozen=True)
class About:
    """What a command is about: a competition's slug or, with another wording, ``user/slug``."""

    slug: str
    wording: Wording = OF_COMPETITIONS


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
    wording: Wording = OF_COMPETITIONS,
) -> KaggleError:
    """What a fault, already blanked, means. ``doing`` says at what the client failed."""
    is_answer = not fault.types or bool(fault.types & {"HTTPError", "ValueError"})
    facts = {
        "last": fault.words if is_answer else f"{fault.name}: {fault.words}",
        "doing": doing,
        "slug": slug,
        "credential": f"{credential.kind} from {credential.where}" if credential else "credentials",
        "hidden": _hidden(credential),
        "folder_option": wording.folder_option,
    }
    failure = _failure(fault, (*GENERAL, *wording.answers, *ON_THE_WAY))
    if failure:
        gone = rehearsal and failure.kind == NETWORK
        sentence = REHEARSAL_GONE if gone else failure.sentence
        return KaggleError(failure.kind, sentence.format(**facts))
    if not is_answer:
        sentence = f"The kaggle client broke while {doing} ({facts['last']}): {versions.mend()}."
        return KaggleError(BROKEN, sentence)
    sentence = (
        "Kaggle refused while {doing} and said {last!r}: run the same command again later, and if it says the "
        f"same, look at {wording.page} for what has changed."
    )
    return KaggleError(REFUSED, sentence.format(**facts))


def _failure(fault: Fault, known: tuple[Failure, ...]) -> Failure | None:
    """By what cannot be mistaken, then by the words, then by Kaggle's status."""
    if "ModuleNotFoundError" in fault.types and "six" in fault.words:
        return SIX
    if fault.errno in FULL:
        return FULL_DISK
    for failure in known:
        if failure.types & fault.types:
            return failure
    if fault.is_of_storage and fault.status in (400, 403, 404):
        return LINK_REFUSED
    for failure in known:
        # A missing login is called a missing permission by some commands.
        if failure.words and failure.words.search(fault.words) and fault.status != 401:
            return failure
    return next((failure for failure in known if fault.status in failure.statuses), None)


def timed_out(doing: str, seconds: float) -> KaggleError:
    """The client was ended because it took longer than it may."""
    return KaggleError(
        TIMEOUT,
        f"Kaggle did not answer within {seconds:.0f} s while {doing}: check the network, and run the same "
        f"command again.",
    )


def last_words(text: str) -> str:
    """The last line that the client wrote, which is where Python and the client put the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = lines[-1] if lines else "the client said nothing"
    return words if len(words) <= LONGEST else words[:LONGEST] + "..."


def _hidden(credential: Credential | None) -> str:
    if credential is None or not credential.hidden:
        return ""
    others = " and ".join(credential.hidden)
    return f" It hides {others}: remove it (or unset it) if that one is good."
