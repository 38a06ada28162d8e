"""Prints one of the files: see ``relay.monitoring``."""

from __future__ import annotations

import sys

from relay.monitoring.alerts import alerts
from relay.monitoring.dashboard import dashboard
from relay.monitoring.page import metrics

sys.stdout.write({"metrics": metrics, "dashboard": dashboard, "alerts": alerts}[sys.argv[1]]())
