"""`--objects CLASS` and `--objects_border CLASS`, for the commands that know single objects."""

from __future__ import annotations

from jsonargparse import Namespace

from crispseg.cli.parsing import Parser
from crispseg.errors import CrispsegError
from crispseg.inference.objects import ObjectRule
from crispseg.labels import LabelSet


def add_object_keys(parser: Parser, what: str) -> None:
    """The keys; `what` is done with the objects."""
    parser.add_argument(
        "--objects", type=str | None, default=None, metavar="CLASS", help=f"also {what} the single objects of a class"
    )
    parser.add_argument(
        "--objects_border",
        type=str | None,
        default=None,
        metavar="CLASS",
        help="class of the pixels between objects, into which they are grown back",
    )


def check_object_keys(parsed: Namespace) -> None:
    """What can be said before a model is loaded.

    Raises:
        CrispsegError: a border is named, but no objects.
    """
    if parsed.objects is None and parsed.objects_border is not None:
        raise CrispsegError(f"--objects_border is {parsed.objects_border}; name the class of the objects by --objects")


def chosen_objects(parsed: Namespace, labels: LabelSet) -> ObjectRule | None:
    """Which pixels make up the objects that are asked for; None if none are.

    Raises:
        CrispsegError: a class of that name is not among the labels, or one is named twice.
    """
    if parsed.objects is None:
        return None
    return ObjectRule.named(labels, parsed.objects, parsed.objects_border)
