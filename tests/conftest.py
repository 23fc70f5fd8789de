"""Lets the tests import what lives beside them (``from analytic import AnalyticSphere``) in every import mode."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
