"""Doctor: what is wrong with data, before any training.

`facts` says what is examined and gathers the facts of each file in one pass, `findings` has the kinds of findings,
`diagnosis` finds and shows them, and `fix` writes a corrected copy.
"""

from crispseg.data.mask_reading import Finding, Severity
from crispseg.doctor.diagnosis import Diagnosis, diagnose
from crispseg.doctor.facts import Subject, subject_of
from crispseg.doctor.findings import KINDS

__all__ = ["KINDS", "Diagnosis", "Finding", "Severity", "Subject", "diagnose", "subject_of"]
