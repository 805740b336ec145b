"""Ordered, durable, resumable streams of records, and the hub that fans them out."""

from streamkit.journal.base import (
    TERMINAL,
    Appended,
    Bounds,
    Clock,
    Delivery,
    Item,
    JobPage,
    Journal,
    JournalStatus,
    Loss,
    Position,
    ProducerId,
    Pruned,
    Record,
    Selector,
    Start,
    Stream,
    Tally,
)
from streamkit.journal.hub import Hub
from streamkit.journal.opening import open_journal, opened_journal
from streamkit.journal.records.columns import StoredItems
from streamkit.journal.records.frames import framed, joined_frames
from streamkit.journal.records.items import RowItem
from streamkit.journal.records.weights import Weighed, weight_of
from streamkit.terms import LEVELS

__all__ = [
    "LEVELS",
    "TERMINAL",
    "Appended",
    "Bounds",
    "Clock",
    "Delivery",
    "Hub",
    "Item",
    "JobPage",
    "Journal",
    "JournalStatus",
    "Loss",
    "Position",
    "ProducerId",
    "Pruned",
    "Record",
    "RowItem",
    "Selector",
    "Start",
    "StoredItems",
    "Stream",
    "Tally",
    "Weighed",
    "framed",
    "joined_frames",
    "open_journal",
    "opened_journal",
    "weight_of",
]
