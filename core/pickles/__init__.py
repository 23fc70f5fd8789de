"""Pickles of other projects, read without importing or running anything that they name."""

from .modules import Tally, named_tensors, plain
from .names import ALL_TENSORS, PERSISTENT_CLASSES, AllowList, Entry, inert_class
from .reading import PickleFile, read_pickle
from .values import Blob, Limits, PickleError, Record, StoredTensor

__all__ = [
    "ALL_TENSORS",
    "PERSISTENT_CLASSES",
    "AllowList",
    "Blob",
    "Entry",
    "Limits",
    "PickleError",
    "PickleFile",
    "Record",
    "StoredTensor",
    "Tally",
    "inert_class",
    "named_tensors",
    "plain",
    "read_pickle",
]
