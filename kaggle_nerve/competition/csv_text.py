"""Read the lines of CSV files from any source, and explain why a file is unreadable."""

from pathlib import Path

from kaggle_nerve.errors import NerveError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAGIC = (
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
    (b"PK\x03\x04", "is a zip archive; unpack it first"),
    (b"BZh", "is bzip2-compressed; unpack it first"),
    (b"\xfd7zXZ", "is xz-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed; unpack it first"),
    (b"\xff\xfe", "is UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; save it as UTF-8"),
)


def read_bytes(path: Path) -> bytes:
    """Read the whole file; raise NerveError if it cannot be opened."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise NerveError(f"cannot read {path}: {fault.strerror}; check the path") from fault


def find_unreadable(data: bytes) -> tuple[int | None, str] | None:
    """Return the line (None: the whole file) and the reason why the bytes are not text; None if they are text."""
    if not data.strip():
        return None, "the file is empty"
    for magic, problem in _MAGIC:
        if data.startswith(magic):
            return None, f"the file {problem}"
    try:
        data.decode("utf-8")
        at = data.find(b"\0")
    except UnicodeDecodeError as fault:
        at = fault.start
    if at < 0:
        return None
    return data[:at].count(b"\n") + 1, f"byte {at + 1} of the file is not UTF-8 text; write a plain CSV file"


def lines(data: bytes) -> list[str]:
    """Split readable bytes into lines without their ends (LF, CRLF or CR) and without a byte-order mark.

    The last line may lack its end. str.splitlines would also split at form feeds and the like.
    """
    text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n")


def quote(text: str) -> str:
    """Quote ``text`` for a message; shorten it if it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
