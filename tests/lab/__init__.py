"""A lab: two hosts made of namespaces, the wire between them, and guests to be moved over it.

Debian 12's /usr/bin/python3 and its standard library are enough. README.md tells how to play.
"""

from .errors import LabError
from .guest import Disk, Guest, Load
from .laboratory import Lab

__all__ = ["Disk", "Guest", "Lab", "LabError", "Load"]
