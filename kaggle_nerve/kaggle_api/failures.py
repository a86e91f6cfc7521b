"""Explain failures of the official client, and what to do about them.

`guard` reports what was raised: its text, its classes and Kaggle's HTTP status. An error is matched by its
classes first, then by the wording of its message, then by the status. The patterns for the wording come from
answers to versions 2.2.4 and 2.2.5 of the client, and from users' reports.
"""

import re
from dataclasses import dataclass

from kaggle_nerve.disk import FULL
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import versions
from kaggle_nerve.kaggle_api.credentials import SETTINGS_PAGE, Credential
from kaggle_nerve.kaggle_api.raw_error import RawError, last_line

CLIENT, DISK, UNAUTHORIZED, LIMIT, RULES = "client", "disk", "unauthorized", "daily-limit", "rules"
NOT_FOUND, RATE, NETWORK, SERVER, CORRUPT = "not-found", "rate", "network", "server", "corrupt"
TIMEOUT, LINK, UPLOAD, BROKEN = "timeout", "link", "upload-failed", "broken"
REFUSED = "refused"
"""Kaggle refused the request: for a reason without a kind of its own, or for one that is not known here."""

UNANSWERED = (NETWORK, SERVER, TIMEOUT, BROKEN)
"""Kinds after which it is unknown whether Kaggle carried out the request."""


class KaggleError(NerveError):
    """A failure of the client, of Kaggle, or of the connection; ``kind`` is one of the names above."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind

    @property
    def reason(self) -> str:
        """The sentence without its next step, for use in another one."""
        return str(self).rpartition(": ")[0]


@dataclass(frozen=True)
class FailureRule:
    """A kind of failure, its signs (any one is enough), and the sentence for the user.

    The signs are names of exception classes, a pattern in the message's last line, and HTTP statuses.
    """

    kind: str
    sentence: str
    types: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()


def make_rule(
    kind: str,
    sentence: str,
    *,
    types: tuple[str, ...] = (),
    pattern: str = "",
    statuses: tuple[int, ...] | range = (),
) -> FailureRule:
    """Make a FailureRule; ``pattern`` is a regular expression that ignores case."""
    compiled = re.compile(pattern, re.IGNORECASE) if pattern else None
    return FailureRule(kind, sentence, frozenset(types), compiled, frozenset(statuses))


OVERLOADED = (429, *range(500, 511))
"""Statuses that Kaggle's own front may answer with a web page."""

LOCAL = (CLIENT, DISK, NETWORK, CORRUPT)
"""Kinds of faults on this side. All others are Kaggle's answers, and only an answer is matched with them."""

PROXIES = "http_proxy, https_proxy and all_proxy"

MISSING_SIX = make_rule(
    CLIENT, "The kaggle client does not start because its package six is missing: run `pip install six`."
)
LINK_REFUSED = make_rule(
    LINK,
    "The download address that Kaggle gave is refused, as it is when it has expired: run the same command again, "
    "which gets a new one.",
)
FULL_DISK = make_rule(
    DISK,
    "The disk became full while {doing}: free some space, or choose another folder{folder_option}, and run the same "
    "command again; what is there already is kept.",
    pattern=r"No space left on device|Disk quota exceeded",
)
OWN_FOLDER = make_rule(
    CLIENT,
    "The kaggle client cannot make its own folder ({last}): set KAGGLE_CONFIG_DIR to one that can be written, "
    "and run the same command again.",
)
BAD_PATH = make_rule(
    DISK,
    "The kaggle client cannot use a file or folder while {doing} ({last}): check that path and its permissions, and "
    "run the same command again.",
)
UNTRUSTED = make_rule(
    NETWORK,
    "The certificate that came in Kaggle's place is not trusted while {doing} ({cause}): behind a proxy that opens "
    "TLS, set REQUESTS_CA_BUNDLE to its certificates; if it is expired or not yet valid, look at this machine's "
    "clock; and run the same command again.",
)
STRANGER = make_rule(
    NETWORK,
    "Something else answered in Kaggle's place while {doing}, such as the login page of a network or a filter: open "
    f"https://www.kaggle.com in a browser, check {PROXIES}, and run the same command again.",
    types=("JSONDecodeError",),
    statuses=(407, 511),
)

GENERAL = (
    make_rule(
        CLIENT,
        f"The kaggle client does not start ({{last}}): run `pip install --force-reinstall {versions.TESTED}`.",
        types=("ImportError",),
    ),
    FULL_DISK,
    make_rule(
        CLIENT,
        f"A SOCKS proxy needs the package PySocks: run `pip install pysocks`, or change {PROXIES}, and run the same "
        "command again.",
        pattern=r"dependencies for SOCKS",
    ),
    make_rule(
        NETWORK,
        f"The address of the proxy is not valid ({{cause}}): write {PROXIES} as http://HOST:PORT, and run the same "
        "command again.",
        types=("InvalidURL", "LocationParseError", "ProxySchemeUnknown"),
    ),
    make_rule(
        CLIENT,
        "The kaggle client does not trust its own folder of unfinished uploads ({last}): remove that folder, and run "
        "the same command again.",
        pattern=r"upload state directory",
    ),
    make_rule(
        CLIENT,
        "The file of trusted certificates does not exist ({cause}): correct or unset REQUESTS_CA_BUNDLE and "
        "CURL_CA_BUNDLE, and run the same command again.",
        pattern=r"suitable TLS CA certificate bundle",
    ),
    make_rule(
        NETWORK,
        f"No encrypted connection to Kaggle comes about while {{doing}} ({{cause}}): check {PROXIES} and the file of "
        "REQUESTS_CA_BUNDLE, or try another network, and run the same command again.",
        types=("SSLError",),
    ),
    make_rule(
        NETWORK,
        f"The proxy lets nothing through to Kaggle while {{doing}} ({{cause}}): check {PROXIES}, with a name and "
        "password (http://NAME:PASSWORD@HOST:PORT) if the proxy wants them, and run the same command again.",
        types=("ProxyError",),
    ),
    make_rule(
        NETWORK,
        "Kaggle cannot be reached, or the connection broke, while {doing}: check the network, and run the same "
        "command again.",
        types=(
            *("ConnectionError", "Timeout", "TimeoutError", "ChunkedEncodingError", "ProtocolError"),
            *("IncompleteRead", "gaierror"),
        ),
        pattern=r"Response ended prematurely",
    ),
    STRANGER,
    make_rule(
        UNAUTHORIZED,
        "Kaggle does not accept the {credential} (401, while {doing}): make a new token at "
        f"{SETTINGS_PAGE} under API, put it in the old one's place and run the same command again.{{precedence}}",
        types=("SystemExit",),
        pattern=r"Authentication required|Unauthenticated|Unauthorized|Invalid credentials",
        statuses=(401,),
    ),
)
"""Failures of any command before Kaggle looks at the request, in the order in which they are checked."""

COMPETITION = (
    make_rule(
        LIMIT,
        "Kaggle takes no more submissions from this account today ({last}): run the same command again after "
        "midnight UTC.",
        pattern=r"submission.{0,60}(limit|allowance|today|tomorrow)|(limit|allowance|today).{0,60}submission",
    ),
    make_rule(
        RULES,
        "Kaggle refuses this account (403, while {doing}) because it has not accepted the competition's rules: "
        "open https://www.kaggle.com/competitions/{slug}/rules, press 'Late Submission' or 'I Understand and "
        f"Accept' (Kaggle may want a phone number first, at {SETTINGS_PAGE}), and run the same command again.",
        pattern=r"accept\b.{0,60}\brules|403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
    ),
    make_rule(
        NOT_FOUND,
        "Kaggle does not know the competition {slug}, or no longer has it for this account (404, while {doing}): "
        "look at https://www.kaggle.com/competitions/{slug} in a browser, logged in with the same account.",
        pattern=r"\bNot ?Found\b|no competition|Could not find competition",
        statuses=(404,),
    ),
    make_rule(
        UPLOAD,
        "Kaggle's storage did not take the file, so nothing was submitted: run the same command again.",
        pattern=r"Could not submit to competition",
    ),
)
"""Failures of the competition's commands."""

TRANSPORT = (
    make_rule(
        RATE,
        "Kaggle wants fewer requests (429, while {doing}): wait some minutes and run the same command again.",
        pattern=r"Too Many Requests|Rate limited|RESOURCE_EXHAUSTED",
        statuses=(429,),
    ),
    make_rule(
        CORRUPT,
        "The download has a wrong size: run the same command again.",
        pattern=r"does not match expected size",
    ),
    make_rule(
        SERVER,
        "Kaggle has a fault of its own while {doing} ({last}): wait some minutes and run the same command again.",
        pattern=r"Service Unavailable|Internal (Server )?Error|Bad Gateway|Gateway Timeout|temporarily|try again later",
        statuses=range(500, 600),
    ),
)
"""Failures of any command, checked last."""


@dataclass(frozen=True)
class FailureRules:
    """Rules for commands about one kind of object, such as a kernel: the rules of its own, besides those of all
    commands, its page on Kaggle (with ``{slug}``), and the option that selects another folder."""

    own_rules: tuple[FailureRule, ...]
    page: str
    folder_option: str = ""


COMPETITION_FAILURES = FailureRules(COMPETITION, "https://www.kaggle.com/competitions/{slug}", " with --data")


@dataclass(frozen=True)
class Subject:
    """What a command is about: a competition's slug or, with the rules for a kernel or dataset, ``user/slug``."""

    slug: str
    rules: FailureRules = COMPETITION_FAILURES


REHEARSAL_GONE = (
    "The rehearsal's server does not answer, or broke off, while {doing}: see that `kaggle-nerve rehearse --serve` "
    "still runs, and run the same command again."
)


def explain(
    error: RawError,
    doing: str,
    slug: str,
    credential: Credential | None,
    *,
    rehearsal: bool = False,
    rules: FailureRules = COMPETITION_FAILURES,
) -> KaggleError:
    """Convert an error, without credentials in it, into a KaggleError with a sentence for the user.

    ``doing`` is a participle phrase that says what the client was doing, such as "listing the data".
    """
    facts = {
        "last": error.last_line if error.is_answer else f"{error.name}: {error.last_line}",
        "cause": last_line(error.cause or error.message),
        "doing": doing,
        "slug": slug,
        "credential": f"{credential.kind} from {credential.where}" if credential else "credentials",
        "precedence": _precedence_note(credential),
        "folder_option": rules.folder_option,
    }
    rule = _match(error, (*GENERAL, *rules.own_rules, *TRANSPORT))
    if rule:
        is_server_gone = rehearsal and rule.kind == NETWORK
        sentence = REHEARSAL_GONE if is_server_gone else rule.sentence
        return KaggleError(rule.kind, sentence.format(**facts))
    if not error.is_answer:
        sentence = f"The kaggle client broke while {doing} ({facts['last']}): {versions.next_step()}."
        return KaggleError(BROKEN, sentence)
    sentence = (
        "Kaggle refused while {doing} and said {last!r}: run the same command again later, and if it says the "
        f"same, look at {rules.page} for what has changed."
    )
    return KaggleError(REFUSED, sentence.format(**facts))


def _match(error: RawError, rules: tuple[FailureRule, ...]) -> FailureRule | None:
    """Match by exception classes, then by the message's wording, then by Kaggle's status.

    For an answer of the file storage the status comes before the wording.
    """
    if "ModuleNotFoundError" in error.types and "six" in error.last_line:
        return MISSING_SIX
    if error.is_own_folder:
        return OWN_FOLDER
    if error.errno in FULL:
        return FULL_DISK
    if error.path:
        return BAD_PATH
    if error.is_page and error.status not in OVERLOADED:
        return STRANGER
    if "CERTIFICATE_VERIFY_FAILED" in error.cause:
        return UNTRUSTED
    for rule in rules:
        if rule.types & error.types:
            return rule
    if error.is_from_storage and error.status in (400, 403, 404):
        return LINK_REFUSED
    # The client itself words some refusals, as plain ValueErrors.
    is_worded = error.is_answer or error.name == "ValueError"
    for rule in rules:
        # Some commands call a missing login (401) a missing permission.
        is_fit = error.status != 401 and (is_worded or rule.kind in LOCAL)
        if is_fit and rule.pattern and rule.pattern.search(error.last_line):
            return rule
    return next((rule for rule in rules if error.status in rule.statuses), None)


def timed_out(doing: str, seconds: float) -> KaggleError:
    """Make the error for a client that was stopped because it exceeded its time limit."""
    return KaggleError(
        TIMEOUT,
        f"Kaggle did not answer within {seconds:.0f} s while {doing}: check the network, and run the same "
        f"command again.",
    )


def _precedence_note(credential: Credential | None) -> str:
    if credential is None or not credential.ignored:
        return ""
    others = " and ".join(credential.ignored)
    return f" It takes precedence over {others}: remove or unset it if the right credential is there."
