"""What goes wrong in a lab, in words for whoever runs it."""


class LabError(Exception):
    """The message says what failed, where, and what the failing program said."""
