"""Doctor: checks of data before training.

`facts` collects facts about each file in one pass, and `findings` defines the kinds of findings. `diagnosis` finds and
shows them, and `fix` writes a corrected copy.
"""

from crispseg.data.finding import Finding, Severity
from crispseg.doctor.diagnosis import Diagnosis, diagnose
from crispseg.doctor.facts import Subject, subject_of
from crispseg.doctor.findings import KINDS

__all__ = ["KINDS", "Diagnosis", "Finding", "Severity", "Subject", "diagnose", "subject_of"]
