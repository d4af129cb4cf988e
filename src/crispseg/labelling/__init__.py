"""What to label next, and which labels are probably wrong."""

from crispseg.labelling.errors import Suspect, label_errors
from crispseg.labelling.following import Candidate, images_to_label

__all__ = ["Candidate", "Suspect", "images_to_label", "label_errors"]
