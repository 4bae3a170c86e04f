"""A run on a terminal: a pseudo-terminal, read until the child has gone."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time

import pytest

from cli.conftest import COMMAND, DEADLINE
