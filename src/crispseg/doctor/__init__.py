"""Doctor: what is wrong with data, before any training.

`subject` says what is examined, `scan` gathers the facts of each file in one pass, `diagnose` turns them into findings,
`report` shows them and `fix` writes a corrected copy.
"""

from crispseg.data.mask_reading import Finding, Severity
from crispseg.doctor.diagnosis import Diagnosis, diagnose
from crispseg.doctor.facts import Subject, subject_of
from crispseg.doctor.findings import KINDS

__all__ = ["KINDS", "Diagnosis", "Finding", "Severity", "Subject", "diagnose", "subject_of"]
