"""Every setting of streamkit: frozen, keyword-only, validated once; seconds and bytes throughout.

A default is safe for a server on a network and documented where it is declared. Nothing here reads
the environment: the command line does that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from streamkit.errors import InvalidArgumentError

__all__ = [
    "Backoff",
    "ClientLimits",
    "DoorLimits",
    "JournalOptions",
    "LogLimits",
    "QueryLimits",
    "RequestLimits",
    "Retention",
    "RetentionRule",
    "ScrapeLimits",
    "TransportLimits",
    "WorkerLimits",
]

KIB = 1024
MIB = 1024 * KIB


def _require_positive(settings: object, *, zero_allowed: tuple[str, ...] = ()) -> None:
    for field in fields(settings):  # type: ignore[arg-type]  # every caller is a dataclass
        value = getattr(settings, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        # Not `value < 0`: what is no number is not positive either.
        if not value >= 0 or (value == 0 and field.name not in zero_allowed):
            raise InvalidArgumentError(f"{field.name} must be positive, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportLimits:
    """What one peer may cost the server or the client."""

    max_message: int = 4 * MIB
    """The largest message accepted, after inflation; checked before it is buffered."""
    small_chunks: int = 4096
    """Pieces in which the body of a request over HTTP/1.1 may come when they are of less than 16
    bytes on average."""
    max_header_list: int = 16 * KIB
    """A request with more header bytes is refused; eight times as many end the connection. Of a
    server's answers, up to sixty-four times as many are read."""
    max_connections: int = 16_384
    """Of one server; one more is closed at once."""
    max_streams: int = 1_000
    """Calls running on one connection; one more is refused, the others go on."""

    max_frame: int = 1 * MIB
    """The largest HTTP/2 frame accepted, and offered to the peer."""
    stream_window: int = 1 * MIB
    """What a peer may send on a stream ahead of its reader."""
    connection_window: int = 16 * MIB
    """What a peer may have in flight on a connection."""
    connection_buffer: int = 64 * MIB
    """Received and unread on all streams of a connection before the peer must wait."""
    large_requests: int = 64 * MIB
    """Of unary requests of more than 128 KiB, over all connections: being received beyond their
    stream's window, decoded or handled at once. More wait, for the stall timeout at most."""
    send_buffer: int = 64 * KIB
    """Encoded and unsent on a stream before its handler must wait."""
    write_buffer: int = 128 * KIB
    """Handed to the socket and unsent on a connection before its streams must wait."""
    control_backlog: int = 1 * MIB
    """Unsent in all; only answers to a peer that floods and does not read can reach it: cut."""

    keepalive_time: float = 30.0
    """A connection silent for so long is asked for a sign of life."""
    keepalive_timeout: float = 20.0
    """No sign of life after so long: the connection is aborted."""
    stall_timeout: float = 30.0
    """A stream that takes nothing of what waits for it for so long is ended."""
    preface_timeout: float = 10.0
    """From accepting a connection to its first settings."""
    request_timeout: float = 10.0
    """From a request's headers to its one message, and for any frame to become whole."""
    handshake_timeout: float = 10.0
    """For TLS."""
    max_connection_idle: float = 0.0
    """A connection without calls for so long is told to go; 0 sets no bound."""
    max_connection_age: float = 0.0
    """A connection of this age takes no more calls; 0 sets no bound."""
    age_grace: float = 30.0
    """What calls of a connection past its age have left."""

    resets: int = 200
    """Streams that a peer may open and reset before anything can come of them, or provoke to be
    reset, at once; regained over 30 s, and by every stream that ends in another way."""
    pings: int = 100
    """Pings at once; regained over 10 s, and by every message sent to the peer."""
    settings: int = 50
    """SETTINGS frames at once; regained over 5 s."""
    empty_frames: int = 1_000
    """Frames without content (empty DATA, unknown types) at once, beside those that a stream's end
    leaves on their way; regained over 10 s, and by every stream."""
    window_updates: int = 10_000
    """WINDOW_UPDATE frames at once; regained over 10 s, by streams and by what the peer is sent."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("max_connection_idle", "max_connection_age"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """What one request may say. Clients may count on it: a server's are the defaults, always."""

    name: int = 255
    """Characters of a topic, service, job or producer, and of a pattern."""
    patterns: int = 1_000
    """Patterns of one reader."""
    stars: int = 16
    """Wildcards of one pattern."""
    seconds: float = 366 * 86400.0
    """The longest duration: of a heartbeat, or of a wait."""
    step: int = 65_536
    """Characters of what a job is at."""
    error: int = 262_144
    """Characters of why a job failed."""
    statuses: int = 100
    """Job statuses that a list is asked for."""
    reflection: int = 4 * KIB
    """Bytes of a question to the reflection service, which goes back with each answer."""
    page: int = 3 * MIB
    """Bytes of one page of a list, unless it is a single item; a stock client takes 4 MiB."""
    jobs: int = 10_000
    """Jobs of one page of a list."""
    count: int = (1 << 63) - 1
    """The most records that may be asked for at once."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionRule:
    """What is kept of some topics or services: less than of the others. 0 sets no bound."""

    stream: str = "updates"
    """"updates" or "logs"."""
    pattern: str = ">"
    """Of topics ("metrics.>") or services ("api-*")."""
    max_age: float = 0.0
    """Seconds."""
    max_bytes: int = 0
    """Of all that the pattern means, approximately."""
    keep_last: int = 0
    """At most so many records of each topic or service, the newest; 1 keeps its last value."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("max_age", "max_bytes", "keep_last"))
        if self.stream not in ("updates", "logs"):
            raise InvalidArgumentError(
                f'stream must be "updates" or "logs", not {self.stream!r}',
                hint="jobs are kept for as long as the whole store says",
            )
        if not self.pattern:
            raise InvalidArgumentError("pattern must not be empty")
        if not (self.max_age or self.max_bytes or self.keep_last):
            raise InvalidArgumentError(
                f"the rule for {self.pattern!r} says nothing",
                hint="give it max_age, max_bytes or keep_last",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What a journal stream keeps. Older records are removed first."""

    max_age: float = 7 * 86400.0
    """Seconds; 0 keeps records of any age."""
    max_bytes: int = 2 * 1024 * MIB
    """Of the whole store, approximately; 0 sets no bound. Updates, logs, job events, jobs and
    remembered requests may each keep an eighth of it, whatever the others hold."""
    rules: tuple[RetentionRule, ...] = ()
    """For some topics and services; the first one that means a topic or service decides. What they
    remove leaves holes: a reader that was behind does not find it, and is not told of a gap."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("max_age", "max_bytes"))


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalOptions:
    """How a journal stores and how much of its end it holds in memory."""

    durability: str = "normal"
    """"normal": an acknowledged write survives the death of the process. "full": of the machine."""
    retention: Retention = Retention()
    ring_records: int = 65_536
    """Records of each stream kept framed in memory for the readers that keep up."""
    ring_bytes: int = 32 * MIB
    remembered_bytes: int = 128 * MIB
    """Of the store, for the requests of producers that are told apart from their repeats."""
    windows_bytes: int = 64 * MIB
    """Of memory, for those of the producers who wrote last."""
    live_jobs: int = 1_000_000
    """Jobs that have not ended; one more is refused."""
    waiting_bytes: int = 64 * MIB
    """Of what is being written, of all calls together; who brings more waits."""
    arriving_bytes: int = 256 * MIB
    """Of what waits for that, of all calls together; who brings more is refused."""
    followed_keys: int = 2_097_152
    """Plain topics, services and jobs that all readers of a stream together follow."""
    pattern_tokens: int = 262_144
    """Tokens of the patterns with wildcards that all readers of a stream together follow: a key
    that is seen for the first time costs at most a step for each."""

    def __post_init__(self) -> None:
        _require_positive(self)
        if self.durability not in ("normal", "full"):
            raise InvalidArgumentError(
                f'durability must be "normal" or "full", not {self.durability!r}'
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLimits:
    """What several servers, that share one log, keep of it and wait for."""

    entry: int = 512 * KIB
    """Requests that wait go into one entry of the log, up to so many bytes."""
    largest: int = 5 * MIB
    """Bytes of a request that is an entry of its own."""
    in_flight: int = 8
    """Entries of one server on their way through the log."""
    lag: float = 10.0
    """Seconds that a server may be behind the log; then it says that it does not serve."""
    lease: float = 5.0
    """Seconds without a sign of the server that removes what is old; then another one does."""
    snapshot_bytes: int = 64 * MIB
    """Of the log, after which a snapshot is made and the log's beginning is removed; or half of
    the store's bytes, where these are more."""
    snapshot_part: int = 512 * KIB
    """Bytes in which a snapshot is handed on."""

    def __post_init__(self) -> None:
        _require_positive(self)


_QUERIES_UNBOUNDED = ("max_rows", "max_bytes", "max_spill", "count_seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryLimits:
    """What one query, and all of them together, may cost the server.

    Time, rows, bytes of the result and the number of queries are bounded for every database.
    Memory and disk are bounded by what each one has for it:

    - SQLite, DuckDB and other libraries: every statement runs in a process of its own, which may
      have `max_memory` and is ended when the query's time is over, whatever it is doing.
    - SQLite besides: no value is larger than `max_value`; everything that grows with the result
      spills into temporary files, `max_spill` in all (where there is a /proc).
    - DuckDB besides: no temporary files at all.
    - PostgreSQL: sorts and hashes of one query get their share of `max_memory`, unless the
      statement itself asks for more by set_config; temporary files get `max_spill` where the login
      may set temp_file_limit. A value may have the size that PostgreSQL allows, 1 GB, and is read
      as a whole. What must hold against hostile statements belongs to the role there:
      `ALTER ROLE reader SET temp_file_limit = '1GB'`.
    """

    max_seconds: float = 300.0
    max_rows: int = 0
    """0 sets no bound."""
    max_bytes: int = 0
    """Of one result; 0 sets no bound."""
    max_message: int = 1 * MIB
    """A batch ends early at this size, so that no stock client refuses it."""
    max_message_asked: int = 64 * MIB
    """The largest message that a client may ask for."""
    max_parameters: int = 32_766
    """Of one query; what SQLite takes."""
    max_digits: int = 1_000
    """Of a decimal parameter, written out: `1e999999999` is twelve bytes and a text of 1 GB."""
    max_value: int = 1 * MIB
    """The largest single value that SQLite may read or make."""
    max_memory: int = 512 * MIB
    """Of each statement's process, beside what the process has anyway; of all the queries on one
    PostgreSQL database."""
    max_spill: int = 4096 * MIB
    """Bytes of temporary files, where it can be told; 0 sets no bound."""
    max_concurrent: int = 8
    max_wait: float = 10.0
    """Seconds that a query waits for its turn when that many run already."""
    share: float = 0.75
    """The part of them that one caller may have: an identity, or else a connection."""
    max_unread: float = 0.75
    """Seconds for which a result may lie unread while others wait for a turn; then it is ended."""
    count_seconds: float = 5.0
    """The count that runs beside a query gives up after this long; 0 never counts."""
    connect_seconds: float = 5.0

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=_QUERIES_UNBOUNDED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientLimits:
    """What a client keeps for a server that is away."""

    spool: int = 64 * MIB
    """Log lines on disk, of all processes that wait for one server; 0 keeps none."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("spool",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """The delays between a client's attempts: first x factor^n, at most `longest`, +- jitter."""

    first: float = 1.0
    factor: float = 1.6
    longest: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("jitter",))


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessLimits:
    """What knowing and checking callers may cost the server."""

    file_bytes: int = 1 * MIB
    """Of the access file, and of the public keys of an issuer of signed tokens."""
    patterns: int = 256
    """Of one role for one action."""
    decisions: int = 4_096
    """Kept for each set of roles; then they are made anew."""
    role_sets: int = 256
    """Sets of roles that are kept ready; signed tokens may bring any."""
    identities: int = 4_096
    """Whose use is remembered beside those that use something now."""
    signed_tokens: int = 4_096
    """Verified ones that are not verified again."""
    log_lines: int = 10_000
    """Of the access log that wait to be written; more are left out and counted."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScrapeLimits:
    """What those that read the metrics may cost the server."""

    connections: int = 8
    """At a time; one more is closed without an answer."""
    head_bytes: int = 16 * KIB
    """Of a request."""
    seconds: float = 10.0
    """From the connection to the end of the answer."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DoorLimits:
    """What those that speak plain HTTP may cost the server, beside `TransportLimits`."""

    shared_bytes: int = 2 * MIB
    """Of the records that are kept as events or JSON, for each kind of reader; those take a few
    times as much."""
    heartbeat: float = 15.0
    """Seconds of silence after which an event stream sends a comment."""
    patterns: int = 100
    """Topics, services and jobs that one address may ask for."""
    requests: int = 10_000
    """Messages of one stream of requests over Connect or gRPC-Web on HTTP/1.1, which is read whole
    before its call begins; together they are at most one `max_message`."""
    sessions: int = 1_000
    """Logins of the page that are remembered; the oldest is forgotten."""
    session_seconds: float = 12 * 3600.0
    """How long a login holds."""
    code_seconds: float = 300.0
    """How long the address that a server prints for its page can be opened, once."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLimits:
    """What the process that owns a store does with those that serve beside it."""

    most: int = 64
    """Processes that serve."""
    behind_bytes: int = 8 * MIB
    """Records on their way to one; a worker that is further behind reads them from the store."""
    silence: float = 30.0
    """Seconds without a sign of life until one is ended and started again."""

    def __post_init__(self) -> None:
        _require_positive(self)
