"""Every way in which the official client fails, as one sentence and the next step.

The client reports failures in prose, and at times in tracebacks; it prints the server's message and seldom the
status, which `guard` adds. So this module reads texts. They were gathered by running versions 2.2.4 and 2.2.5 of
the client, and from its users' reports.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
class Failure:
    """A kind of failure, the texts that give it away, and what the user is told."""

    kind: str
    signs: re.Pattern[str]
    sentence: str


def answer(kind: str, signs: str, sentence: str) -> Failure:
    """A Failure; ``signs`` is a pattern in which case does not count."""
    return Failure(kind, re.compile(signs, re.IGNORECASE), sentence)


API_HOSTS = r"api\.kaggle\.com/|www\.kaggle\.com/|localhost/api/"
"""Where the client asks; all other addresses are the storage's, signed for a while."""

GENERAL = (
    answer(
        CLIENT,
        r"No module named '?six",
        "The kaggle client does not start because its package six is missing: run `pip install six`.",
    ),
    answer(
        CLIENT,
        r"ModuleNotFoundError|ImportError|No module named",
        f"The kaggle client does not start ({{last}}): run `pip install --force-reinstall {versions.TESTED}`.",
    ),
    answer(
        CLIENT,
        r"unrecognized arguments|invalid choice",
        f"The kaggle client is too old: {versions.INSTALL}.",
    ),
    answer(
        CLIENT,
        r"(FileNotFoundError|PermissionError|Read-only file system).*kaggle",
        "The kaggle client cannot make its own folder ({last}): set KAGGLE_CONFIG_DIR to one that can be written, "
        "and run the same command again.",
    ),
    answer(
        DISK,
        r"No space left on device|Errno 28\b|Disk quota exceeded",
        "The disk became full while {doing}: free some space, or choose another folder{folder_option}, and run "
        "the same command again; what is there already is kept.",
    ),
    answer(
        NETWORK,
        r"SSLError|CERTIFICATE_VERIFY_FAILED",
        "The certificate that came in Kaggle's place is not trusted while {doing}: behind a proxy that opens "
        "TLS, set REQUESTS_CA_BUNDLE to its certificates, and run the same command again.",
    ),
    answer(
        NETWORK,
        r"ProxyError|Cannot connect to proxy|Tunnel connection failed",
        "The proxy lets nothing through to Kaggle while {doing}: check http_proxy and https_proxy, and run the "
        "same command again.",
    ),
    answer(
        UNAUTHORIZED,
        r"Authentication required|401 Client Error|Unauthenticated|Unauthorized|Invalid credentials",
        "Kaggle does not accept the {credential} (401, while {doing}): make a new token at "
        f"{SETTINGS_PAGE} under API, put it in the old one's place and run the same command again.{{hidden}}",
    ),
    answer(
        LINK,
        rf"(400|403|404) Client Error: .{{0,40}} for url: https?://(?!{API_HOSTS})",
        "The download address that Kaggle gave is refused, as it is when it has expired: run the same command "
        "again, which gets a new one.",
    ),
)
"""What may befall any command before Kaggle looks at what is wanted; looked through in this order."""

COMPETITION = (
    answer(
        LIMIT,
        r"submission.{0,60}(limit|allowance|today|tomorrow)|(limit|allowance|today).{0,60}submission",
        "Kaggle takes no more submissions from this account today ({last}): run the same command again after "
        "midnight UTC.",
    ),
    answer(
        RULES,
        r"accept\b.{0,60}\brules|403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
        "Kaggle refuses this account (403, while {doing}) because it has not accepted the competition's rules: "
        "open https://www.kaggle.com/competitions/{slug}/rules, press 'Late Submission' or 'I Understand and "
        f"Accept' (Kaggle may want a phone number first, at {SETTINGS_PAGE}), and run the same command again.",
    ),
    answer(
        NOT_FOUND,
        r"404 Client Error|\bNot ?Found\b|no competition|Could not find competition",
        "Kaggle does not know the competition {slug}, or no longer has it for this account (404, while {doing}): "
        "look at https://www.kaggle.com/competitions/{slug} in a browser, logged in with the same account.",
    ),
    answer(
        UPLOAD,
        r"Could not submit to competition",
        "Kaggle's storage did not take the file, so nothing was submitted: run the same command again.",
    ),
)
"""What the competition's commands get for an answer."""

ON_THE_WAY = (
    answer(
        RATE,
        r"429 Client Error|Too Many Requests|Rate limited|RESOURCE_EXHAUSTED",
        "Kaggle wants fewer requests (429, while {doing}): wait some minutes and run the same command again.",
    ),
    answer(
        CORRUPT,
        r"does not match expected size",
        "The download has a wrong size: run the same command again.",
    ),
    answer(
        NETWORK,
        r"ConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|Max retries exceeded|"
        r"Connection (refused|aborted|reset)|RemoteDisconnected|IncompleteRead|ChunkedEncodingError|"
        r"ProtocolError|Network is unreachable|name resolution|Response ended prematurely",
        "Kaggle cannot be reached, or the connection broke, while {doing}: check the network, and run the same "
        "command again.",
    ),
    answer(
        SERVER,
        r"5\d\d Server Error|Service Unavailable|Internal (Server )?Error|Bad Gateway|Gateway Timeout|"
        r"temporarily|try again later",
        "Kaggle has a fault of its own while {doing} ({last}): wait some minutes and run the same command again.",
    ),
)
"""What may befall any command, looked for last."""

LONGEST = 300

STATUS = re.compile(r"^kaggle-nerve: HTTP (\d{3})\n?", re.MULTILINE)
"""The line of `guard` that gives the status of the client's last HTTP answer."""

UNEXPECTED = "If this is unexpected, you can re-run with"
"""How versions from 2.2.5 on go on after an exception that older ones ended with a traceback."""

MODULE = re.compile(r"^(\w+\.)+(?=\w+: )")
"""Begins the last line of a traceback; versions from 2.2.5 on print the exception's name alone."""

ADVICE = re.compile(
    rf"\n\n(?:You don't have access to this resource|The resource was not found\. Check|You have been rate limited|"
    rf"This is a problem on Kaggle's side|{UNEXPECTED})(?s:.*)\Z"
)
"""What versions from 2.2.5 on print below the reason. It suits their own commands, not these."""


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
    text: str,
    doing: str,
    slug: str,
    credential: Credential | None,
    *,
    rehearsal: bool = False,
    wording: Wording = OF_COMPETITIONS,
) -> KaggleError:
    """What the client's output, already blanked, means. ``doing`` says at what it failed."""
    broke = "Traceback" in text or UNEXPECTED in text
    text, status = _reason_and_status(text)
    facts = {
        "last": last_words(text),
        "doing": doing,
        "slug": slug,
        "credential": f"{credential.kind} from {credential.where}" if credential else "credentials",
        "hidden": _hidden(credential),
        "folder_option": wording.folder_option,
    }
    known = (*GENERAL, *wording.answers, *ON_THE_WAY)
    # Above the last line may stand what the client got over; the status counts where its words say nothing.
    failure = _first(known, facts["last"], text, status)
    if failure and failure.kind in (NOT_FOUND, RULES) and status.startswith("401"):
        failure = _first(known, status)  # some commands call that a missing permission
    if failure:
        gone = rehearsal and failure.kind == NETWORK
        sentence = REHEARSAL_GONE if gone else failure.sentence
        return KaggleError(failure.kind, sentence.format(**facts))
    if broke and not facts["last"].startswith("requests."):
        sentence = (
            f"The kaggle client broke while {doing} ({MODULE.sub('', facts['last'])}): {versions.mend()}."
        )
        return KaggleError(BROKEN, sentence)
    sentence = (
        "Kaggle refused while {doing} and said {last!r}: run the same command again later, and if it says the "
        f"same, look at {wording.page} for what has changed."
    )
    return KaggleError(REFUSED, sentence.format(**facts))


def _first(known: Iterable[Failure], *parts: str) -> Failure | None:
    """The first of ``known`` in the first part that gives one away."""
    return next((failure for part in parts for failure in known if failure.signs.search(part)), None)


def _reason_and_status(text: str) -> tuple[str, str]:
    """``text`` without the client's advice, and the last HTTP status in the words of `requests`, or "".

    A 403 gives no status: it may be of the rules, a phone number or a name, so only its words tell.
    """
    answer = STATUS.search(text)
    status = answer[1] if answer else ""
    side = "Server" if status.startswith("5") else "Client"
    words = "" if status in ("", "403") else f"{status} {side} Error"
    return ADVICE.sub("", STATUS.sub("", text).rstrip()), words


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
