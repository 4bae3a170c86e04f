"""How the command is started in tests, and for how long it may run."""

from __future__ import annotations

import sys

DEADLINE = 30.0
"""Seconds after which a child is a failure; a run takes well below one."""

COMMAND = (sys.executable, "-W", "error::ResourceWarning", "-m", "isthmus", "run")
