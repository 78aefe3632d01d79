"""Why an address or a file gave no picture: a closed vocabulary, so that histograms can be compared."""

from enum import StrEnum


class Failure(StrEnum):
    BAD_ADDRESS = "bad address"
    REFUSED_ADDRESS = "refused address"
    NO_SUCH_NAME = "no such name"
    NO_CONNECTION = "no connection"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    BROKEN_ANSWER = "broken answer"
    REDIRECTS = "too many redirects"
    HTTP_401 = "http 401"
    HTTP_403 = "http 403"
    HTTP_404 = "http 404"
    HTTP_410 = "http 410"
    HTTP_429 = "http 429"
    HTTP_4XX = "http 4xx"
    HTTP_5XX = "http 5xx"
    HTTP_OTHER = "http other"
    OPTED_OUT = "owner opted out"
    WRONG_TYPE = "wrong type"
    TOO_LARGE = "too large"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_SMALL = "too small"
    TOO_ELONGATED = "too elongated"
    UNKNOWN_COLOURS = "unknown colours"
    NOT_A_PICTURE = "not a picture"
    BROKEN_PICTURE = "broken picture"
    WRONG_SIZE = "wrong size"
    NOT_A_CLIP = "not a clip"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    NO_ANSWER = "no answer"
    OTHER = "other"


# What may go away by itself: tried again with growing pauses.
TRANSIENT = {
    Failure.NO_CONNECTION, Failure.TIMEOUT, Failure.BROKEN_ANSWER, Failure.HTTP_429, Failure.HTTP_5XX,
    Failure.NO_ANSWER, Failure.OTHER,
}  # fmt: skip
# What may have been the trouble of our own machine (its names, clock, certificates): no verdict for a later run.
DOUBTFUL = TRANSIENT | {Failure.NO_SUCH_NAME, Failure.CERTIFICATE}


def of_status(status: int) -> Failure:
    """Return the reason that stands for an HTTP status which brings no picture."""
    if (exact := f"http {status}") in list(Failure):
        return Failure(exact)
    return {4: Failure.HTTP_4XX, 5: Failure.HTTP_5XX}.get(status // 100, Failure.HTTP_OTHER)
