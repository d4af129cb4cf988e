"""Text of findings."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from crispseg.config.settings import plural
from crispseg.errors import CrispsegError, assignments, few
from crispseg.folders.finding import FINDING_KINDS, Finding


class Wording(Formatter):
    """`str.format` in which {count:image} is "3 images", and lists and counts of pixels are written out."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec:
            return plural(value, format_spec)
        if isinstance(value, Mapping):
            return few((f"{key} ({plural(number, 'pixel')})" for key, number in value.items()), 8)
        if isinstance(value, (list, tuple)):
            return few(value, 8)
        return str(value)


def message(finding: Finding) -> str:
    """Return what was found."""
    return worded(FINDING_KINDS[finding.code].message, finding)


def remedy(finding: Finding) -> str:
    """Return what to do about it, with the settings that would correct it."""
    text = worded(FINDING_KINDS[finding.code].remedy, finding)
    given = [" and ".join(assignments(settings)) for settings in finding.settings]
    return f"{text}; or give {' or '.join(given)}" if given else text


def worded(template: str, finding: Finding) -> str:
    """Return a template with the values of a finding."""
    return Wording().format(template, **{**finding.values, "count": finding.count})


def line(finding: Finding) -> str:
    """Return message and remedy."""
    return f"{message(finding)}; {remedy(finding)}"


def lines_of(finding: Finding) -> list[str]:
    """Return message and remedy, and two examples of groups of files."""
    groups = finding.values.get("groups", ())
    return [line(finding), *(f"    {group[0]} = {group[-1]}" for group in groups[:2])]


def error_of(finding: Finding) -> CrispsegError:
    """Return an error about a finding, with the first of its files."""
    where = f", {'first ' if len(finding.files) > 1 else ''}in {finding.files[0]}" if finding.files else ""
    return CrispsegError(f"{message(finding)}{where}; {remedy(finding)}", settings=finding.settings)
